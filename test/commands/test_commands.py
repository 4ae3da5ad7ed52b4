"""The command line itself: what it loads, how it fails."""

import signal
import subprocess
import sys
import time
import weakref

import pytest

from lighttrack_ros import __version__, commands


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in commands.COMMANDS)


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit):
        commands.main(["--version"])
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["track"], ["evaluate"]])
def test_wrong_usage_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(arguments)
    assert end.value.code == 2
    assert "usage: lighttrack" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(commands.COMMANDS.keys() - {"import", "export", "train", "download"}))
def test_every_command_has_a_help_and_needs_neither_torch_nor_rclpy_for_it(name):
    """On a robot there is no torch, on a laptop without ROS there is no rclpy."""
    script = (
        "import sys\n"
        "for module in ('torch', 'onnx', 'rclpy'): sys.modules[module] = None\n"
        "from lighttrack_ros.commands import main\n"
        f"main([{name!r}, '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: lighttrack {name}" in done.stdout


@pytest.mark.parametrize("kind", sorted(commands.COMMANDS["bench"][0]))
def test_every_benchmark_has_a_help(kind, capsys):
    with pytest.raises(SystemExit) as end:
        commands.main(["bench", kind, "--help"])
    assert end.value.code == 0
    assert f"usage: lighttrack bench {kind}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [
        (["bench", "models"], "torch", "import"),
        (["calibrate", "--sequences", "."], "onnx", "import"),
        (["train", "nano"], "torch", "import"),
    ],
)
def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(command, module, extra):
    script = (
        f"import sys; sys.modules[{module!r}] = None; import lighttrack_ros.commands as c; sys.exit(c.main({command}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"pip install 'lighttrack_ros[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["compile"], ["selftest", "--gpu"]])
def test_a_comparison_of_no_frames_is_refused_before_anything_is_compiled(command, capsys):
    assert commands.main([*command, "--frames", "0"]) == 1
    assert "--frames is 0, expected at least 1" in capsys.readouterr().err


def test_errors_are_one_line_without_a_traceback(capsys):
    assert commands.main(["track", "/nothing/there.mp4", "--box", "1,2,3,4"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("lighttrack track: /nothing/there.mp4: no such file")
    assert "Traceback" not in shown


def test_ctrl_c_ends_with_130(monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lighttrack_ros.commands.evaluate.run", interrupted)
    assert commands.main(["evaluate", "--sequences", "x"]) == 130


def test_a_ctrl_c_that_comes_in_a_callback_is_not_lost(monkeypatch):
    """Python forgets what a weak reference's callback raises; since 3.13 one runs with every import."""

    went_on = []

    def interrupted_in_a_callback(_):
        thing = type("Thing", (), {})()
        _reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))
        del thing
        time.sleep(20)
        went_on.append(True)
        return 0

    monkeypatch.setattr("lighttrack_ros.commands.evaluate.run", interrupted_in_a_callback)
    assert commands.main(["evaluate", "--sequences", "x"]) == 130
    assert not went_on
