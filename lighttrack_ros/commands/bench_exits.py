"""`lighttrack bench exits`: time and accuracy of a trained DyTrack's exits, and on which frames they are taken."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lighttrack_ros.evaluation.evaluate import describe_machine
from lighttrack_ros.evaluation.exits import fixed_exits
from lighttrack_ros.media.sequences import files_of, find_labelled
from lighttrack_ros.models import load_model
from lighttrack_ros.outputs import check_outputs, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="name or folder of a DyTrack model")
    parser.add_argument("--sequences", type=Path, required=True, metavar="DIR", help="one folder per sequence inside")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="use only these sequences")
    parser.add_argument("--skip", nargs="+", default=[], metavar="NAME", help="leave these sequences out")
    parser.add_argument("--against", metavar="MODEL", help="a model with the same exits to compare with, exit by exit")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: half of the cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")


def run(args: argparse.Namespace) -> int:
    from lighttrack_ros.training.exit_figures import exit_figures

    model = load_model(args.model)
    other = load_model(args.against) if args.against else None
    for each in (model, other):
        if each is not None:
            fixed_exits(each)  # both are DyTracks, or nothing is begun
    sequences, _ = find_labelled(args.sequences, args.only, args.skip)
    check_outputs([args.json], [*files_of(sequences), model.folder])
    print(f"{model.name}: {model.architecture}, threads: {args.threads or 'half of the cores'}, {describe_machine()}")
    figures = exit_figures(model, other, sequences, args.threads)
    _print(figures)
    if args.json is not None:
        write_json(args.json, figures)
        print(f"figures: {args.json}")
    return 0


def _print(figures: dict[str, Any]) -> None:
    print("\nexit   MACs M  share   network ms  share   step ms     AUC  overlap*")
    for row in figures["exits"]:
        print(
            f"{row['exit']:4} {row['macs_m']:8.0f}  {row['macs_share']:.3f}   {row['network_ms']:10.2f}"
            f"  {row['time_share']:.3f}   {row['step_ms']:7.2f}   {row['auc']:.3f}     {row['overlap']:.3f}"
        )
    print("\nmode       stops at exit          expected ms  measured  ratio   share     AUC  fixed depth, equal time")
    for row in figures["modes"]:
        print(
            f"{row['mode']:9}  {_shares(row['shares']):21}  {row['expected_ms']:11.2f}  {row['network_ms']:8.2f}"
            f"  {row['measured_to_expected']:.3f}   {row['time_share']:.3f}   {row['auc']:.3f}"
            f"  {row['fixed_depth_auc']:.3f}"
        )
    print("\nstopping*  stops at exit          overlap  by chance, equal shares")
    for row in figures["stopping"]:
        print(f"{row['way']:9}  {_shares(row['shares']):21}    {row['overlap']:.3f}  {row['chance_overlap']:.3f}")
    print("\nexit*  correlation of quality and overlap  AUROC of overlap 0.7  calibration error")
    for row in figures["decisions"]:
        print(f"{row['exit']:4}   {row['correlation']:34.3f}  {row['auroc']:20.3f}  {row['calibration_error']:17.3f}")
    modes = list(figures["difficulty"][0]["shares"])
    print("\nframes             overlap* by exit       " + "".join(f"{mode + ' stops at exit':24}" for mode in modes))
    for row in figures["difficulty"]:
        shares = "".join(f"{_shares(row['shares'][mode]):24}" for mode in modes)
        print(f"{row['measure']:6}  {row['third']:9}  {_shares(row['overlap']):21}  {shares}")
    ways = list(figures["sequences"][0]["auc"])
    print("\nAUC             " + "".join(f"{way:>10}" for way in ways) + "   mean exit: " + ", ".join(modes))
    for row in figures["sequences"]:
        aucs = "".join(f"{row['auc'][way]:10.3f}" for way in ways)
        print(f"{row['sequence']:16}{aucs}   " + "  ".join(f"{row['mean_exit'][mode]:.2f}" for mode in modes))
    if "against" in figures:
        print(f"\nagainst {figures['against']['model']}")
        print("exit     AUC  its AUC  better in   overlap**   its   difference       better in")
        for row in figures["against"]["exits"]:
            print(
                f"{row['exit']:4}   {row['auc']:.3f}    {row['other_auc']:.3f}"
                f"   {row['sequences_better']:2} of {row['sequences']}"
                f"       {row['overlap']:.3f}  {row['other_overlap']:.3f}"
                f"  {row['overlap_difference']:+.3f} +- {row['standard_error']:.3f}"
                f"   {row['sequences_overlap_better']:2} of {row['sequences']}"
            )
    print("\n* all exits start from the last exit's box of the frame before; from the true box where it is lost")
    print("** mean of the sequences' means; every frame starts from the true box of the frame before")


def _shares(values: Sequence[float]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)
