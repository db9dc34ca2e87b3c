"""Train the VAE, the denoiser with its text encoder, and the judge that checks them.

    train.py --out DIR [--quick] [--threads N] [STAGE...]

Stages, in this order by default: vae, unet, judge. Each writes its weights to DIR and reads what
it needs from there, so one may be repeated alone.
"""

import argparse
import copy
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from data import draw_batch, load
from model import Judge, TextEncoder, UNet, VaeDecoder, VaeEncoder

BATCH = 64
STEPS = {"vae": 1500, "unet": 2500, "judge": 1000}
QUICK_STEPS = {"vae": 100, "unet": 100, "judge": 200}


def has_bf16():
    """Tell whether the CPU multiplies bfloat16 itself; without that autocast only slows down."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return "amx_bf16" in cpuinfo or "avx512_bf16" in cpuinfo


def autocast():
    """Return the context in which networks run while training: bfloat16 where that helps."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=has_bf16())


def optimise(name, parameters, loss_of_batch, steps, peak_rate, after_step=lambda step: None):
    """Minimise `loss_of_batch()`, a scalar, over `steps` draws.

    AdamW with a short warm-up and a cosine to nothing, gradients clipped to norm 1.
    `after_step(step)` is called with 0, 1, ... once the weights have changed.
    """
    optimiser = torch.optim.AdamW(parameters, peak_rate, betas=(0.9, 0.99), weight_decay=0.01)
    warm_up = min(100, steps // 5)
    start, total = time.monotonic(), 0.0
    for step in range(steps):
        rate = peak_rate * min(1, (step + 1) / warm_up) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of_batch()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        after_step(step)
        total += loss.item()
        if (step + 1) % 100 == 0:
            elapsed = time.monotonic() - start
            print(f"{name} {step + 1}/{steps}  loss {total / 100:.4f}  {elapsed:.0f} s", flush=True)
            total = 0.0


def train_vae(out, steps):
    """Train encoder and decoder to give pictures back; write vae_encoder.pt and vae_decoder.pt.

    The loss is L1 + 2 MSE and a very light pull of the latent towards a unit Gaussian. The latent's
    mean and deviation per channel, over 512 pictures, are stored in the decoder.
    """
    pictures, items = load()
    encoder, decoder = VaeEncoder(), VaeDecoder()
    parameters = [*encoder.parameters(), *decoder.parameters()]

    def loss_of_batch():
        images, _, _ = draw_batch(pictures, items, BATCH)
        with autocast():
            latent, mean, log_variance = encoder.draw(images)
            error = decoder(latent).float() - images
        divergence = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).mean()
        return error.abs().mean() + 2 * (error**2).mean() + 2e-4 * divergence

    optimise("vae", parameters, loss_of_batch, steps, peak_rate=2e-3)
    with torch.no_grad():
        images, _, _ = draw_batch(pictures, items, 512)
        _, mean, _ = encoder.draw(images)
        error = decoder(mean) - images  # still with the decoder's scaling of 1
        decoder.mean.copy_(mean.mean((0, 2, 3), keepdim=True))
        decoder.std.copy_(mean.std((0, 2, 3), keepdim=True))
    print(f"vae: reconstruction {10 * math.log10(4 / (error**2).mean()):.1f} dB PSNR")
    torch.save(encoder.state_dict(), out / "vae_encoder.pt")
    torch.save(decoder.state_dict(), out / "vae_decoder.pt")


def train_unet(out, steps):
    """Train denoiser and text encoder together; write unet.pt and text_encoder.pt.

    Rectified flow (Liu et al., arXiv 2209.03003): x_t = (1 - t) latent + t noise, and the network
    learns the velocity noise - latent, with t drawn logit-normal (Esser et al., arXiv 2403.03206).
    What is written is an exponential moving average of the weights.
    """
    pictures, items = load()
    encoder, decoder = VaeEncoder(), VaeDecoder()
    encoder.load_state_dict(torch.load(out / "vae_encoder.pt"))
    decoder.load_state_dict(torch.load(out / "vae_decoder.pt"))
    nets = nn.ModuleList([UNet(), TextEncoder()])
    averaged = copy.deepcopy(nets).requires_grad_(False)
    parameters, averages = list(nets.parameters()), list(averaged.parameters())

    def loss_of_batch():
        unet, text_encoder = nets
        images, tokens, _ = draw_batch(pictures, items, BATCH)
        with torch.no_grad(), autocast():
            latent, _, _ = encoder.draw(images)
            latent = decoder.scale(latent)
        noise = torch.randn_like(latent)
        t = torch.sigmoid(torch.randn(BATCH))
        mix = t[:, None, None, None]
        with autocast():
            velocity = unet((1 - mix) * latent + mix * noise, 1000 * t, text_encoder(tokens))
        return F.mse_loss(velocity.float(), noise - latent)

    @torch.no_grad()
    def average(step):
        keep = min(0.998, (2 + step) / (11 + step))
        torch._foreach_mul_(averages, keep)
        torch._foreach_add_(averages, parameters, alpha=1 - keep)

    optimise("unet", parameters, loss_of_batch, steps, peak_rate=8e-4, after_step=average)
    unet, text_encoder = averaged
    torch.save(unet.state_dict(), out / "unet.pt")
    torch.save(text_encoder.state_dict(), out / "text_encoder.pt")


def train_judge(out, steps):
    """Train the classifier of item, colour and background on real pictures; write judge.pt."""
    pictures, items = load()
    judge = Judge()

    def loss_of_batch():
        images, _, truth = draw_batch(pictures, items, BATCH)
        return sum(F.cross_entropy(logits, truth[:, i]) for i, logits in enumerate(judge(images)))

    optimise("judge", list(judge.parameters()), loss_of_batch, steps, peak_rate=2e-3)
    with torch.no_grad():
        images, _, truth = draw_batch(*load("t10k"), 5000)
        right = [(logits.argmax(1) == truth[:, i]).float().mean()
                 for i, logits in enumerate(judge(images))]
    print("judge: item {:.1%}, colour {:.1%}, background {:.1%} of test pictures".format(*right))
    torch.save(judge.state_dict(), out / "judge.pt")


STAGES = {"vae": train_vae, "unet": train_unet, "judge": train_judge}


def main():
    """Run the stages named on the command line."""
    parser = argparse.ArgumentParser(description="Train the fashion-diffusion example.")
    parser.add_argument("stages", nargs="*", metavar="STAGE",
                        help=f"of {', '.join(STAGES)}; all by default")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights (*.pt)")
    parser.add_argument("--quick", action="store_true",
                        help="few steps: shows that everything works, draws nothing good")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in args.stages:
        if name not in STAGES:
            parser.error(f"no stage {name!r}; there are {', '.join(STAGES)}")

    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    if not has_bf16():
        print("this CPU has no bfloat16 arithmetic: training takes about four times as long")
    for name in args.stages or STAGES:
        torch.manual_seed(args.seed)
        STAGES[name](args.out, (QUICK_STEPS if args.quick else STEPS)[name])


if __name__ == "__main__":
    main()
