"""A pretrained checkpoint: caching, evaluation, head sweeps, replies and probes beside what a script would do.

    DIPTYCH_REAL=FOLDER python -m benchmarks.real [--model smollm2] [--dtype bfloat16] [--gpu] [--json PATH]

Items are BBQ-like quads (`benchmarks.eval`) in the checkpoint's own chat template. Outputs are compared before anything
is timed: `agree` is the largest difference, which a batch of another composition also makes in bfloat16. CPU seconds of
the process, least of the rounds, methods in turn; seconds of the clock on a GPU. The bare forward is the decoder alone
on batches of 8 of similar length, right-padded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import eval as letters
from benchmarks import heads, probes
from benchmarks.cache import peak
from benchmarks.kit import Report, Setting, arguments, fastest
from interp import Checkpoint, Model, load
from interp.cache import extract
from interp.evaluate import Decoding, evaluate
from interp.evaluate.decoding import end_tokens
from interp.evaluate.writing import write
from interp.passes import pad
from interp.prompt import Example, Prompt, render
from interp.tasks import bbq

BATCH, NEW_TOKENS, N_QUADS, N_REPLIES = 8, 32, 8, 16
LAYERS_OF_PROBES = 6
"""Layers whose activations are put side by side, so that the features are about as many as those of a 7B model."""


def main() -> None:
    setting = arguments(__doc__ or "", real=True)
    model = checkpoint(setting)
    report = Report("real")
    items = letters.quads(N_QUADS)
    prompts = [render(item, model.tokenizer) for item in items]
    caching(report, setting, model, items, prompts)
    evaluation(report, setting, model, items, prompts)
    sweeps(report, setting, model, prompts)
    replies(report, setting, model, prompts)
    probing(report, setting, model, items)
    report.finish(setting.json)


def checkpoint(setting: Setting) -> Model:
    """The checkpoint that `DIPTYCH_REAL` holds, on the device of the setting.

    Raises:
        SystemExit: the folder does not hold it.
    """
    folder = Path(os.environ.get("DIPTYCH_REAL", "build/real")) / setting.model
    if not (folder / "config.json").is_file():
        raise SystemExit(
            f"{setting.model}: expected a Hugging Face folder in DIPTYCH_REAL, found none at {folder}. "
            "`python -m tests.real.fetch FOLDER` makes smollm2; choose another with --model."
        )
    template = "own" if (folder / "chat_template.jinja").is_file() else "plain"
    where = Checkpoint(setting.model, str(folder))
    return load(
        where,
        dtype="bfloat16" if setting.gpu and setting.dtype == "auto" else setting.dtype,
        device=setting.device,
        template=template,
    )


def bare(model: Model, rows: Sequence[Sequence[int]]) -> Tensor:
    """Final hidden state of the last token of each row [row, d_model]: batches of 8 of similar length, no hooks."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    out: list[Tensor | None] = [None] * len(rows)
    for at in range(0, len(order), BATCH):
        chosen = order[at : at + BATCH]
        ids = pad([rows[i] for i in chosen]).input_ids.to(model.device)
        final = model.decoder(input_ids=ids, use_cache=False).last_hidden_state
        for k, i in enumerate(chosen):
            out[i] = final[k, len(rows[i]) - 1].clone()
    return torch.stack([row for row in out if row is not None])


def compare(
    report: Report,
    setting: Setting,
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    goal: str,
    agree: float,
    note: str,
) -> None:
    """One line of time and one of peak memory, both as ours over theirs."""
    seconds = fastest({"ours": ours, "theirs": theirs}, rounds=setting.rounds, device=setting.device)
    note = f"({seconds['ours']:.2f} s against {seconds['theirs']:.2f} s; {note})"
    report.add(f"{name}: time", seconds["ours"] / seconds["theirs"], goal=goal, limit="1.0", agree=agree, note=note)
    held = {run: peak(run, setting.device) / 2**20 for run in (ours, theirs)}
    sizes = f"({held[ours]:.0f} MiB against {held[theirs]:.0f} MiB above the weights)"
    report.add(f"{name}: peak memory", held[ours] / held[theirs], note=sizes)


def caching(
    report: Report, setting: Setting, model: Model, items: Sequence[Example], prompts: Sequence[Prompt]
) -> None:
    """All layers at the last position, to disk, with the options that `diptych cache` has by default."""
    rows, last = [prompt.ids for prompt in prompts], model.n_layers - 1
    folder = Path(tempfile.mkdtemp(dir="."))

    def ours() -> Any:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        return extract(model, items, sites="resid_post.*", positions="last", out=folder / "cache", progress=False)

    try:
        kept = ours().read(f"resid_post.{last}", "last").to(model.device)
        normed = model.layout.final_norm(kept.to(model.dtype))
        agree = relative(normed, bare(model, rows))
        note = f"{sum(map(len, rows))} tokens, {model.n_layers} layers"
        compare(report, setting, "cache, all layers, last position / bare forward", ours, lambda: bare(model, rows),
                goal="<= 1.05", agree=agree, note=note)  # fmt: skip
    finally:
        shutil.rmtree(folder)


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value: a few coordinates of real models are thousands of times the others."""
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())


def evaluation(
    report: Report, setting: Setting, model: Model, items: Sequence[Example], prompts: Sequence[Prompt]
) -> None:
    """Letter scores of items that share nothing but the instruction, and of quads."""
    rows = [prompt.ids for prompt in prompts]
    encode = model.tokenizer.encode
    spellings = {
        x: [ids[0] for s in bbq.spellings(x) if len(ids := encode(s, add_special_tokens=False)) == 1] for x in "ABC"
    }

    def theirs() -> Tensor:
        return model.unembed(bare(model, rows)).float().log_softmax(-1)

    logp = theirs()
    apart = [replace(item, groups={**item.groups, "quad": item.id}) for item in items]
    for what, some in (("single items", apart), ("quads", items)):
        answers = {a.example_id: a for a in letter_scores(model, some)}
        agree = max(
            abs(answers[item.id].logp[x] - float(row[spellings[x]].logsumexp(-1)))
            for item, row in zip(items, logp, strict=True)
            for x in "ABC"
        )
        compare(report, setting, f"eval by letters, {what} / bare forward", lambda s=some: letter_scores(model, s),
                theirs, goal="<= 1.15", agree=agree, note=f"{len(items)} items")  # fmt: skip


def letter_scores(model: Model, items: Sequence[Example]) -> list[Any]:
    task: Any = bbq
    return [a for _, batch in evaluate(model, task, items, decoding=Decoding(generate=False)) for a in batch]


def sweeps(report: Report, setting: Setting, model: Model, prompts: Sequence[Prompt]) -> None:
    """Zero ablation of every head at the answer slot of one prompt, against one hooked forward pass per head."""
    ids = prompts[0].ids
    pair = heads.TokenPair(None, ids, *heads.ANSWERS)
    n_layers, n_heads = model.n_layers, model.layout.layers[0].n_heads
    n = n_layers * n_heads
    cells = [(0, 1), (n_layers // 2, n_heads - 1), (n_layers - 1, 0)]
    sweep = heads.ours(model, pair, everywhere=False)
    margins = sweep()
    agree = max(abs(margins[x * n_heads + y] - heads.naive(model, pair, x, y, everywhere=False)) for x, y in cells)
    methods = {"ours": sweep, "naive": lambda: heads.naive(model, pair, *cells[1], everywhere=False)}
    seconds = fastest(methods, rounds=2 * setting.rounds, device=setting.device)
    limit = n / (1 + n / (2 * len(ids)))
    report.add(
        "heads, all heads, naive loop / ours",
        seconds["naive"] * n / seconds["ours"],
        goal=f">= {0.9 * limit:.0f}",
        limit=f"{limit:.0f}",
        agree=agree,
        note=f"({seconds['ours']:.2f} s for {n} heads of {len(ids)} tokens; a hooked forward {seconds['naive']:.3f} s)",
    )
    held = {run: peak(run, setting.device) / 2**20 for run in methods.values()}
    mine, loop = (held[run] for run in methods.values())
    report.add("heads: peak memory / a hooked forward", mine / loop, note=f"({mine:.0f} MiB against {loop:.0f} MiB)")


def replies(report: Report, setting: Setting, model: Model, prompts: Sequence[Prompt]) -> None:
    """Greedy replies of up to 32 tokens in one batch, as `transformers.generate` writes them."""
    some = list(prompts[:N_REPLIES])
    ends = sorted(end_tokens(model))
    batch = pad([p.ids for p in some], pad_id=model.pad_id, side="left").to(model.device)
    generate: Any = model.module.generate
    options = dict(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=ends, pad_token_id=model.pad_id)

    def ours() -> list[Any]:
        return write(model, some, Decoding(), new_tokens=NEW_TOKENS)

    def theirs(**more: Any) -> Any:
        return generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, **options, **more)

    full = theirs(return_dict_in_generate=True, output_logits=True)
    mine = write(model, some, Decoding(), new_tokens=NEW_TOKENS, keep_finals=True)
    first = model.unembed(torch.stack([final for one in mine if (final := one.final_after(one.prompt)) is not None]))
    agree = float((first.float().log_softmax(-1) - full.logits[0].float().log_softmax(-1)).abs().amax(0).median())
    tails = full.sequences[:, batch.input_ids.shape[1] :].tolist()
    n_other = sum(list(one.ids) != tail[: len(one.ids)] for one, tail in zip(mine, tails, strict=True))
    n_new = sum(len(one.ids) for one in mine)
    note = f"{len(some)} prompts, {n_new} new tokens, {n_other} replies differ by rounding"
    compare(report, setting, "replies / generate of transformers", ours, theirs, goal="<= 1.0", agree=agree, note=note)


def probing(report: Report, setting: Setting, model: Model, items: Sequence[Example]) -> None:
    """Linear probes on rows of a real cache, 5 folds of stories x 5 C, against scikit-learn at its default tolerance
    and at ours: whether the item asks the second of two questions."""
    step = model.n_layers // LAYERS_OF_PROBES
    sites = [f"resid_post.{k * step}" for k in range(LAYERS_OF_PROBES)]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        cache = extract(
            model, items, sites=",".join(sites), positions="stride:3", out=Path(folder) / "cache", progress=False
        )
        feats = torch.cat([cache.read_rows(site).float() for site in sites], dim=1)
        names = cache.rows["example_id"].tolist()
    story = {name: k for k, name in enumerate(dict.fromkeys(item.groups["story"] for item in items))}
    of = {item.id: (float(int(item.id.split("-")[1]) >= 2), story[item.groups["story"]]) for item in items}
    labels, fold = (torch.tensor(part) for part in zip(*(of[name] for name in names), strict=True))
    fold = fold % probes.FOLDS
    arrays = feats.numpy(), labels.numpy(), fold.numpy()
    feats, labels, fold = (part.to(setting.device) for part in (feats, labels, fold))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits: dict[str, Any] = {}
        for name, tol in (("default", None), ("tol=1e-6", 1e-6)):
            methods = {
                "ours": lambda: fits.update(ours=probes.ours(feats, labels, fold)),
                "theirs": lambda n=name, t=tol: fits.update({n: probes.theirs(*arrays, t)}),
            }
            seconds = fastest(methods, rounds=1, device=setting.device, warm_up=["ours"])
            mine, other = accuracy(fits["ours"], arrays), accuracy_of(fits[name], arrays)
            report.add(
                f"probes on {len(feats)} x {feats.shape[1]} of the cache, scikit-learn {name} / ours",
                seconds["theirs"] / seconds["ours"],
                goal=">= 40",
                agree=float(np.abs(mine - other).max()),
                note=f"({seconds['ours']:.2f} s against {seconds['theirs']:.1f} s; accuracy out of fold at the five C "
                f"{', '.join(f'{x:.3f}' for x in mine)}; theirs {', '.join(f'{x:.3f}' for x in other)})",
            )


def accuracy(fit: Any, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Out-of-fold accuracy of our fits at each C."""
    feats, labels, fold = arrays
    scores = fit.coef[:, 0].double().cpu().numpy() @ feats.T.astype(
        float
    ) + fit.intercept.double().cpu().numpy().reshape(-1, 1)
    return by_c([scores[i] > 0 for i in range(len(scores))], labels, fold)


def accuracy_of(fitted: list[Any], arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """Out-of-fold accuracy of scikit-learn's fits at each C."""
    feats, labels, fold = arrays
    return by_c([one.predict(feats) > 0.5 for one in fitted], labels, fold)


def by_c(predicted: Sequence[np.ndarray], labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Share of right predictions at each C, each row predicted by the fit of the fold that left it out."""
    is_right = np.stack([row == (labels > 0.5) for row in predicted]).reshape(probes.FOLDS, len(probes.CS), -1)
    return np.array([np.mean([is_right[f, c, i] for i, f in enumerate(fold)]) for c in range(len(probes.CS))])


if __name__ == "__main__":
    main()
