"""`jaxrl report` as a user meets it; the page itself is tested in tests/experiment/test_report.py."""

import pytest

from jaxrl.cli import main
from tests.experiment.run_folders import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run"
    write_run(path, [100], env="Catch-bsuite")
    return path


def test_a_page_is_written_where_it_was_asked_for(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(run), "--films", "0"]) == 0
    assert capsys.readouterr().out == "report.html\n"
    assert main(["report", str(run), "--films", "0", "-o", "other", "--reference", "Catch-bsuite", "-1", "1"]) == 0
    assert capsys.readouterr().out == "other.html\n"
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    gap = [">0.000<" in (tmp_path / name).read_text() for name in ("report.html", "other.html")]
    assert gap == [False, True]
    (tmp_path / "other.html").write_text("old")
    assert main(["report", str(run), "--films", "0", "-o", "other.html"]) == 0
    assert (tmp_path / "other.html").read_text().startswith("<!doctype html>")
