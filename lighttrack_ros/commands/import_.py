"""`lighttrack import`: make a model folder from a published checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path

from lighttrack_ros.export.importer import import_checkpoint
from lighttrack_ros.models import (
    SessionSettings,
    load_model,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, help="as published, or a .safetensors file")
    parser.add_argument("--name", required=True, help="name of the model, and of its folder")
    parser.add_argument(
        "--architecture", help="LightTrack: path of the search space (default: LightTrack-Mobile); others: leave it out"
    )
    parser.add_argument("--output", type=Path, help="folder that holds model folders (default: ./engines, or your own)")
    parser.add_argument("--source", help="where the checkpoint came from, for model.yaml (default: its file name)")
    parser.add_argument("--licence", default="not stated", help="licence of the weights, for model.yaml")


def run(args: argparse.Namespace) -> int:
    source = args.source or args.checkpoint.name
    folder = import_checkpoint(args.checkpoint, args.name, args.architecture, args.output, source, args.licence)
    print(f"model {args.name} is in {folder}")
    if load_model(folder).session == SessionSettings():
        print(
            "when its target counts as lost is not fitted to these weights yet; on sequences with ground truth:\n"
            f"  lighttrack fit-session {folder} --sequences DIR --write"
        )
    return 0
