"""Label a scene in this process with a clock around the network.

    python -m benchmarks.occupancy scene.bil --model model.safetensors --output map.tif

Prints a JSON object: seconds of the run, and those during which the network was at work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hsiclust.process import prepare_process


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of this script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("scene", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Label and print the figures."""
    options = parse_arguments(argv)
    prepare_process()
    import torch

    from benchmarks.alone import Clock, put_under
    from hsiclust.api import PredictOptions, predict

    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device.index or 0)
    clock = Clock(device)
    put_under(clock)
    wanted = PredictOptions(device=options.device, overwrite=True)
    done = predict(str(options.scene), options.model, options.output, wanted)
    print(json.dumps({"seconds": done.seconds, "network": clock.seconds, "pixels": done.pixels}))


if __name__ == "__main__":
    main()
