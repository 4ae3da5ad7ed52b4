"""`lighttrack bench models`: counts and report are checked, times are not."""

import json

import pytest

from lighttrack_ros.commands import main
from lighttrack_ros.export import costs


def test_macs_and_rows_of_each_variant(tmp_path, capsys):
    """MixFormerV2-S matches the counts of the official code; DyTrack's MACs fall with the exit."""
    figures = tmp_path / "models.json"
    command = ["bench", "models", "--models", "mixformerv2_small", "dytrack_small", "--rounds", "1", "--threads", "1"]
    assert main([*command, "--json", str(figures)]) == 0
    rows = json.loads(figures.read_text())["rows"]
    table = capsys.readouterr().out
    assert all(row["what"] in table for row in rows)
    full, kept, _, *exits = [row["macs"] for row in rows]
    assert full == pytest.approx(4820, rel=0.01)
    assert kept == pytest.approx(2760, rel=0.01)
    assert rows[0]["parameters"] == pytest.approx(16.04, abs=0.01)
    assert len(exits) == 4
    blocks = (12, 9, 6, 3)
    for macs, count in zip(exits, blocks, strict=True):
        assert macs / exits[0] == pytest.approx(count / blocks[0], abs=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "mixformer"], "expected some of lighttrack_mobile, mixformerv2_small"),
        (["--rounds", "0"], "--rounds is 0, expected at least 1"),
        (["--json", "{tmp}"], "cannot be written"),
    ],
)
def test_wrong_arguments_fail_before_anything_runs(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("ran"))
    assert main(["bench", "models", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err
