"""The networks: text encoder, denoiser (a UNet) and VAE, Stable Diffusion's parts in small.

Shapes, with n pictures in a batch: an image is [n, 3, 32, 32] in -1...1, a latent [n, 4, 8, 8] of
about unit variance, a prompt [n, TOKENS] ids, its embedding [n, TOKENS, TEXT_WIDTH].
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from data import BACKGROUNDS, COLOURS, ITEMS, TOKENS, VOCAB

TEXT_WIDTH = 128
LATENT = (4, 8, 8)
IMAGE = (3, 32, 32)


class GroupNorm(nn.GroupNorm):
    """Group normalisation over 8 groups, computed in float32 also under autocast."""

    def __init__(self, channels):
        super().__init__(8, channels)

    def forward(self, x):
        return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation, computed in float32 also under autocast."""

    def forward(self, x):
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class ResBlock(nn.Module):
    """Two 3 x 3 convolutions around a skip; `cond`, [n, condition], shifts the middle."""

    def __init__(self, inputs, outputs, condition=0):
        super().__init__()
        self.norm1 = GroupNorm(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = GroupNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.shift = nn.Linear(condition, outputs) if condition else None

    def forward(self, x, cond=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if self.shift is not None:
            h = h + self.shift(cond)[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """Multi-head attention of x [n, m, width] over context [n, k, context_width]."""

    def __init__(self, width, context_width, heads=4):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(context_width, width)
        self.value = nn.Linear(context_width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x, context):
        n, m, width = x.shape
        k, size = context.shape[1], width // self.heads
        q = self.query(x).view(n, m, self.heads, size).transpose(1, 2)
        keys = self.key(context).view(n, k, self.heads, size).permute(0, 2, 3, 1)
        values = self.value(context).view(n, k, self.heads, size).transpose(1, 2)
        weights = torch.softmax(torch.matmul(q, keys) * size**-0.5, -1)
        return self.out(torch.matmul(weights, values).transpose(1, 2).reshape(n, m, width))


class TransformerBlock(nn.Module):
    """Self-attention, attention over a context if `context_width` is not 0, and a small MLP."""

    def __init__(self, width, context_width=0):
        super().__init__()
        self.norm1 = LayerNorm(width)
        self.self_attention = Attention(width, width)
        if context_width:
            self.norm2 = LayerNorm(width)
            self.cross_attention = Attention(width, context_width)
        self.has_context = context_width > 0
        self.norm3 = LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(),
                                 nn.Linear(2 * width, width))

    def forward(self, x, context=None):
        h = self.norm1(x)
        x = x + self.self_attention(h, h)
        if self.has_context:
            x = x + self.cross_attention(self.norm2(x), context)
        return x + self.mlp(self.norm3(x))


class SpatialTransformer(nn.Module):
    """A transformer block over the pixels of a picture [n, channels, h, w]."""

    def __init__(self, channels):
        super().__init__()
        self.norm = GroupNorm(channels)
        self.block = TransformerBlock(channels, TEXT_WIDTH)

    def forward(self, x, context):
        n, channels, height, width = x.shape
        pixels = self.norm(x).flatten(2).transpose(1, 2)
        return x + self.block(pixels, context).transpose(1, 2).reshape(n, channels, height, width)


class TextEncoder(nn.Module):
    """Token ids int64 [n, TOKENS] -> embedding float32 [n, TOKENS, TEXT_WIDTH]."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(VOCAB), TEXT_WIDTH)
        self.places = nn.Parameter(torch.randn(TOKENS, TEXT_WIDTH) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(TEXT_WIDTH) for _ in range(2))
        self.norm = LayerNorm(TEXT_WIDTH)

    def forward(self, ids):
        h = self.words(ids) + self.places
        for block in self.blocks:
            h = block(h)
        return self.norm(h)


class UNet(nn.Module):
    """(latent [n, 4, 8, 8], timestep [n] in 0...1000, text embedding) -> velocity [n, 4, 8, 8].

    Every row has its own timestep, so one run may hold requests at different steps. Two levels,
    8 x 8 with 96 channels and 4 x 4 with 192, with text attention on both.
    """

    def __init__(self, channels=96, condition=256):
        super().__init__()
        c, c2 = channels, 2 * channels
        self.time = nn.Sequential(nn.Linear(128, condition), nn.SiLU(),
                                  nn.Linear(condition, condition))
        self.text = nn.Linear(TEXT_WIDTH, condition)
        self.first = nn.Conv2d(LATENT[0], c, 3, padding=1)
        self.down1, self.down1_text = ResBlock(c, c, condition), SpatialTransformer(c)
        self.down2 = ResBlock(c, c, condition)
        self.shrink = nn.Conv2d(c, c2, 3, 2, 1)
        self.low1, self.low1_text = ResBlock(c2, c2, condition), SpatialTransformer(c2)
        self.low2, self.low2_text = ResBlock(c2, c2, condition), SpatialTransformer(c2)
        self.middle = ResBlock(c2, c2, condition)
        self.rise1, self.rise1_text = ResBlock(2 * c2, c2, condition), SpatialTransformer(c2)
        self.rise2 = ResBlock(2 * c2, c2, condition)
        self.grow = nn.Conv2d(c2, c, 3, padding=1)
        self.up1, self.up1_text = ResBlock(2 * c, c, condition), SpatialTransformer(c)
        self.up2 = ResBlock(2 * c, c, condition)
        self.norm = GroupNorm(c)
        self.last = nn.Conv2d(c, LATENT[0], 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("frequencies", torch.exp(-math.log(10000) * torch.arange(64) / 64.0))

    def forward(self, x, timestep, text):
        angles = timestep.float()[:, None] * self.frequencies[None]
        time = self.time(torch.cat([angles.cos(), angles.sin()], -1))
        cond = F.silu(time + self.text(text.mean(1)))

        h1 = self.down1_text(self.down1(self.first(x), cond), text)
        h2 = self.down2(h1, cond)
        h3 = self.low1_text(self.low1(self.shrink(h2), cond), text)
        h4 = self.low2_text(self.low2(h3, cond), text)
        h = self.middle(h4, cond)
        h = self.rise1_text(self.rise1(torch.cat([h, h4], 1), cond), text)
        h = self.rise2(torch.cat([h, h3], 1), cond)
        h = self.grow(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.up1_text(self.up1(torch.cat([h, h2], 1), cond), text)
        h = self.up2(torch.cat([h, h1], 1), cond)
        return self.last(F.silu(self.norm(h)))


class VaeEncoder(nn.Module):
    """Image -> float32 [n, 8, 8, 8]: four channels of mean, four of log variance."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(IMAGE[0], 32, 3, padding=1), ResBlock(32, 32),
            nn.Conv2d(32, 64, 3, 2, 1), ResBlock(64, 64),
            nn.Conv2d(64, 96, 3, 2, 1), ResBlock(96, 96),
            GroupNorm(96), nn.SiLU(), nn.Conv2d(96, 2 * LATENT[0], 3, padding=1))

    def forward(self, image):
        return self.net(image)

    def draw(self, image):
        """Return (a drawn latent, its mean, its log variance), each [n, 4, 8, 8], unscaled."""
        mean, log_variance = self(image).float().chunk(2, 1)
        log_variance = log_variance.clamp(-12, 4)
        return mean + torch.exp(log_variance / 2) * torch.randn_like(mean), mean, log_variance


class VaeDecoder(nn.Module):
    """Latent of unit variance -> image; `mean` and `std`, [1, 4, 1, 1], undo the scaling."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, LATENT[0], 1, 1))
        self.register_buffer("std", torch.ones(1, LATENT[0], 1, 1))
        self.net = nn.Sequential(
            nn.Conv2d(LATENT[0], 96, 3, padding=1), ResBlock(96, 96), ResBlock(96, 96),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            nn.Conv2d(96, 64, 3, padding=1), ResBlock(64, 64),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
            nn.Conv2d(64, 32, 3, padding=1), ResBlock(32, 32),
            GroupNorm(32), nn.SiLU(), nn.Conv2d(32, IMAGE[0], 3, padding=1))

    def forward(self, latent):
        return self.net(latent * self.std + self.mean)

    def scale(self, latent):
        """Return a latent as the encoder draws it, scaled to unit variance (the inverse)."""
        return (latent - self.mean) / self.std


class Judge(nn.Module):
    """Image -> logits of (item [n, 10], colour [n, 10], background [n, 3]).

    Never sees a generated picture; tells whether one shows what its prompt says.
    """

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 4 * 4, 128), nn.ReLU(),
            nn.Linear(128, len(ITEMS) + len(COLOURS) + len(BACKGROUNDS)))

    def forward(self, image):
        return self.net(image).split([len(ITEMS), len(COLOURS), len(BACKGROUNDS)], 1)
