"""`lighttrack export`: a model's graphs made anew from a checkpoint; what was tuned in its folder stays."""

from __future__ import annotations

import argparse
from pathlib import Path

from lighttrack_ros.export.exporter import export_checkpoint
from lighttrack_ros.models import load_model
from lighttrack_ros.runtime.ranges import FILE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="weights of the same architecture, as `import` reads them")
    parser.add_argument("model", help="name or folder of the model whose graphs are to be written anew")


def run(args: argparse.Namespace) -> int:
    folder = export_checkpoint(args.checkpoint, args.model)
    print(f"the graphs in {folder} are those of {args.checkpoint}; its settings are as they were")
    if (folder / FILE).exists():
        print(f"{FILE} is of the graphs before; int8 needs\n  lighttrack calibrate {folder} --sequences DIR")
    if load_model(folder).verifier is not None:
        print("what its session knows is of the weights before; fit it anew:")
        print(f"  lighttrack fit-session {folder} --sequences DIR --write")
    return 0
