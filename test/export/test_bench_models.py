"""`lighttrack bench models`: that it counts right and reports what it ran; its times are asserted nowhere."""

import json

import pytest

from lighttrack_ros.commands import main
from lighttrack_ros.export import costs


def test_the_work_of_each_way_to_run_a_network(tmp_path, capsys):
    """MixFormerV2-S against the counts made of the official code; DyTrack's work falls with the exit."""
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
def test_wrong_arguments_are_told_before_anything_runs(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(costs, "measure", lambda *_: pytest.fail("ran"))
    assert main(["bench", "models", *(argument.format(tmp=tmp_path) for argument in arguments)]) == 1
    assert message in capsys.readouterr().err
