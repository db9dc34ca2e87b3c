"""Check an exported model: does it draw what it is asked for?

    check.py --models DIR --judge FILE [--sheet PNG] [--least-item SHARE] [--least-colour SHARE]

Draws every item in every colour with the ONNX files in DIR, asks the judge what it sees, and exits
with 1 when that agrees with the prompts too seldom.
"""

import argparse
import sys
from pathlib import Path

import torch

from data import BACKGROUNDS, COLOURS, ITEMS, TOKENS, VOCAB, prompt_for
from export import GRAPHS
from model import IMAGE, LATENT, TEXT_WIDTH, Judge
from onnx_run import OnnxModel
from sample import sample, write_sheet

# What the engine counts on: name and shape of each input, then of the output.
INTERFACE = {
    "text_encoder": [("input_ids", ["batch", TOKENS]),
                     ("last_hidden_state", ["batch", TOKENS, TEXT_WIDTH])],
    "unet": [("sample", ["batch", *LATENT]), ("timestep", ["batch"]),
             ("encoder_hidden_states", ["batch", TOKENS, TEXT_WIDTH]),
             ("out_sample", ["batch", *LATENT])],
    "vae_decoder": [("latent_sample", ["batch", *LATENT]), ("sample", ["batch", *IMAGE])],
}


def load_graphs(models):
    """Return the graphs in GRAPHS's order; raises ValueError when a file is not as expected."""
    if (models / "vocab.txt").read_text().split("\n")[:-1] != VOCAB:
        raise ValueError(f"{models}/vocab.txt is not the vocabulary of data.py")
    graphs = []
    for name in GRAPHS:
        graph = OnnxModel(models / f"{name}.onnx")
        if graph.inputs + graph.outputs != INTERFACE[name]:
            raise ValueError(f"{name}.onnx has {graph.inputs} -> {graph.outputs}")
        graphs.append(graph)
    return graphs


def main():
    """Draw, judge, and say so."""
    parser = argparse.ArgumentParser(description="Check the fashion-diffusion example.")
    parser.add_argument("--models", type=Path, required=True, help="folder of *.onnx and vocab.txt")
    parser.add_argument("--judge", type=Path, required=True, help="judge.pt of train.py")
    parser.add_argument("--sheet", type=Path, help="write the pictures here, as one PNG")
    parser.add_argument("--least-item", type=float, default=0.85, metavar="SHARE")
    parser.add_argument("--least-colour", type=float, default=0.95, metavar="SHARE")
    parser.add_argument("--steps", type=int, default=10, help="denoising steps")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    text_encoder, unet, vae_decoder = load_graphs(args.models)
    judge = Judge()
    judge.load_state_dict(torch.load(args.judge))
    wanted = torch.tensor([(item, colour, (colour + item) % len(BACKGROUNDS))
                           for colour in range(len(COLOURS)) for item in range(len(ITEMS))])
    prompts = [prompt_for(*row) for row in wanted.tolist()]
    pictures = sample(text_encoder, unet, vae_decoder, prompts, steps=args.steps)
    if args.sheet:
        write_sheet(args.sheet, pictures, columns=len(ITEMS))
    with torch.no_grad():
        item, colour, background = (
            (logits.argmax(1) == wanted[:, i]).float().mean().item()
            for i, logits in enumerate(judge(pictures)))
    print(f"of {len(prompts)} pictures in {args.steps} steps the judge sees the prompt's item in "
          f"{item:.0%}, its colour in {colour:.0%}, its background in {background:.0%}")
    if item < args.least_item or colour < args.least_colour:
        sys.exit(f"expected at least {args.least_item:.0%} and {args.least_colour:.0%}")


if __name__ == "__main__":
    main()
