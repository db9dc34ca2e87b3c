"""Export trained weights as the three ONNX graphs and the vocabulary of a diffusion model.

    export.py --weights DIR --out DIR

Fails, leaving what it wrote for inspection, when a graph does not give what torch gives.
"""

import argparse
import warnings
from pathlib import Path

import torch

from data import TOKENS, VOCAB
from model import LATENT, TEXT_WIDTH, TextEncoder, UNet, VaeDecoder
from onnx_run import OnnxModel

# file: (network, its inputs by name, its output's name); the first dimension of each is the batch
GRAPHS = {
    "text_encoder": (TextEncoder, ["input_ids"], "last_hidden_state"),
    "unet": (UNet, ["sample", "timestep", "encoder_hidden_states"], "out_sample"),
    "vae_decoder": (VaeDecoder, ["latent_sample"], "sample"),
}
TOLERANCE = 1e-4  # largest absolute difference from torch


def draw_inputs(graph, n):
    """Return random inputs of a graph in GRAPHS for a batch of n."""
    if graph == "text_encoder":
        return (torch.randint(len(VOCAB), (n, TOKENS)),)
    latent = torch.randn(n, *LATENT)
    if graph == "unet":
        return latent, 1000 * torch.rand(n), torch.randn(n, TOKENS, TEXT_WIDTH)
    return (latent,)


def export(graph, weights, out):
    """Write out/GRAPH.onnx from weights/GRAPH.pt and return its largest difference from torch.

    The graph is traced with a batch of 2 and compared with one of 5, so that a batch size frozen
    into it is noticed. Raises RuntimeError above TOLERANCE.
    """
    network, inputs, output = GRAPHS[graph]
    net = network()
    net.load_state_dict(torch.load(weights / f"{graph}.pt"))
    net.eval()
    path = out / f"{graph}.onnx"
    torch.onnx.export(net, draw_inputs(graph, 2), str(path), opset_version=15, input_names=inputs,
                      output_names=[output],
                      dynamic_axes={name: {0: "batch"} for name in [*inputs, output]})
    arguments = draw_inputs(graph, 5)
    with torch.no_grad():
        error = (OnnxModel(path)(*arguments) - net(*arguments)).abs().max().item()
    if not error <= TOLERANCE:  # also when it is NaN
        raise RuntimeError(f"{path} differs from torch by {error:.2g}")
    return error


def main():
    """Export all graphs and vocab.txt (a token a line, its id the line's number from 0)."""
    parser = argparse.ArgumentParser(description="Export the fashion-diffusion example to ONNX.")
    parser.add_argument("--weights", type=Path, required=True, help="where train.py put *.pt")
    parser.add_argument("--out", type=Path, required=True, help="folder for *.onnx and vocab.txt")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="torch.onnx")  # internal shape inference
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    for graph in GRAPHS:
        error = export(graph, args.weights, args.out)
        size = (args.out / f"{graph}.onnx").stat().st_size
        print(f"{graph}.onnx: {size / 1e6:.1f} MB, within {error:.1g} of torch")
    (args.out / "vocab.txt").write_text("\n".join(VOCAB) + "\n")


if __name__ == "__main__":
    main()
