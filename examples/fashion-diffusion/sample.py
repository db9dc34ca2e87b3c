"""Sampling: prompts to pictures, with torch modules or with exported graphs alike."""

import struct
import zlib

import torch

from data import tokenize
from model import LATENT


@torch.no_grad()
def sample(encode, denoise, decode, prompts, steps=20, guidance=3.0, seed=0):
    """Return float32 [n, 3, 32, 32] in -1...1, one picture a prompt.

    encode, denoise and decode map tensors as TextEncoder, UNet and VaeDecoder do. Integrates
    dx/dt = velocity from t = 1 (noise) to t = 0 in `steps` equal steps with the second-order
    Adams-Bashforth method (the first step is Euler's), under classifier-free guidance.
    """
    n = len(prompts)
    text = encode(torch.tensor([tokenize(p) for p in prompts]))
    empty = encode(torch.tensor([tokenize("")])).expand(n, -1, -1)
    context = torch.cat([text, empty])
    x = torch.randn(n, *LATENT, generator=torch.Generator().manual_seed(seed))
    previous = None
    for step in range(steps):
        timestep = torch.full((2 * n,), 1000 * (1 - step / steps))
        with_text, without = denoise(torch.cat([x, x]), timestep, context).chunk(2)
        velocity = without + guidance * (with_text - without)
        slope = velocity if previous is None else 1.5 * velocity - 0.5 * previous
        x, previous = x - slope / steps, velocity
    return decode(x).clamp(-1, 1)


def write_sheet(path, images, columns):
    """Write images [n, 3, h, w] in -1...1 as one PNG, `columns` a row; n is a multiple of that."""
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    n, _, h, w = pixels.shape
    sheet = pixels.view(n // columns, columns, 3, h, w).permute(0, 3, 1, 4, 2)
    sheet = sheet.reshape(n // columns * h, columns * w, 3)

    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    height, width, _ = sheet.shape
    rows = b"".join(b"\0" + bytes(row.flatten().tolist()) for row in sheet)
    with open(path, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n")
        f.write(chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        f.write(chunk(b"IDAT", zlib.compress(rows, 9)))
        f.write(chunk(b"IEND", b""))
