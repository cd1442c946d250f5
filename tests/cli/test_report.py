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


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("report", "name at least one run folder"),
        ("report /nowhere", "/nowhere is not a run folder: it has no config.json"),
        ("report RUN RUN", "is given twice"),
        ("report RUN -o /nowhere/page.html", "cannot write /nowhere/page.html: there is no folder /nowhere"),
        ("report RUN -o /tmp", "-o/--out cannot be '/tmp': it is a folder, so name a file in it"),
        ("report RUN -o page.pdf", "a report is a page, with the suffix .html; got page.pdf"),
        ("report RUN -o /proc/page.html --films 0", "cannot write /proc/page.html"),
        ("report RUN --films -1", "--films must be at least 0, got -1"),
        ("report RUN --films x", "--films cannot be 'x'"),
        ("report RUN --reference a 1", "--reference expected 3 arguments"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_code_2(run, argv, message, capsys):
    assert main([str(run) if word == "RUN" else word for word in argv.split()]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("jaxrl: error: ")
    assert error.count("\n") == 1
