"""Reading metrics.csv as it is after a process was killed, or as someone left it."""

import pytest

from jaxrl.experiment.curves import read_curves
from jaxrl.experiment.folder import read_metrics
from jaxrl.experiment.notes import Note
from tests.experiment.test_divergence import ROWS, folder_with


@pytest.mark.parametrize("cut", [1, 4, 10])
def test_half_a_last_row_is_left_out_with_a_note(tmp_path, cut):
    with pytest.warns(Note, match=r"metrics\.csv ends in the middle of a row, which is left out"):
        columns = read_metrics(folder_with(tmp_path, ROWS[:-cut]))
    assert len(columns["seed"]) == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("1.0\n1,", "1.0,3\n1,"), "damaged"),
        (("20,20,1", "20,20"), "damaged"),
        (("20,20,1", "20,x,1"), "damaged .could not convert"),
        (("tau", "tou"), "has no column 'tau'"),
        (("episode_return", "return"), "has no column 'episode_return'"),
        ((ROWS, ""), "holds no rows yet"),
        ((ROWS, "seed,tau\n"), "holds no rows yet"),
    ],
)
def test_what_is_wrong_with_it_is_one_line(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"metrics\.csv .*{message}"):
        read_curves(folder_with(tmp_path, ROWS.replace(*change, 1)))


def test_a_folder_of_a_later_version_is_refused(tmp_path):
    run = folder_with(tmp_path, ROWS)
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"jaxrl": "0.1.0"', '"jaxrl": "9.9.0"'))
    with pytest.raises(ValueError, match=r"config\.json was written by jaxrl 9\.9\.0, which is later than this version, 0\.1\.0"):
        read_curves(run)
