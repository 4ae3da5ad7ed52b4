"""`lighttrack bench`: what things cost on this machine; one subcommand a question."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    questions = parser.add_subparsers(dest="question", required=True, metavar="QUESTION")
    models = questions.add_parser("models", help="parameters, MACs and time per frame of every network (needs torch)")
    models.add_argument("--models", nargs="+", default=[], metavar="NAME", help="these networks alone")
    models.add_argument("--rounds", type=int, default=20, help="runs of each (default: %(default)s)")
    models.add_argument("--threads", type=int, default=0, help="CPU threads a run; 0: all")
    models.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def run(args: argparse.Namespace) -> int:
    from lighttrack_ros.networks import bench_models

    return bench_models.run(args)
