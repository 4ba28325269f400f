"""Reading activations with an oracle: one prefill for many questions, mixed-adapter collection, vectorised injection.

    python -m benchmarks.oracle [--json PATH] [--gpu]

Random weights: the price does not depend on them. Outputs are compared before anything is timed; methods take turns.

- 8 questions over 200 activations: seconds of 8 full prompts (injected, generated one by one, as the original does) /
  seconds of one prefill whose cache is expanded. Limit: 8, reached only if questions and answers cost nothing.
- one collection of base and two adapters at half the depth: seconds of it / seconds of one full forward of the base on
  the same texts. Limit: three rows per text through the blocks up to the layer, adapters for nothing.
- injection inside the hook: seconds of a loop over rows (the original) / seconds of the vectorised form, whose indices
  were built before. Both copy the residual stream once, which is most of it where rows are many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.kit import Report, Setting, arguments, interleave
from interp.injection import Slots, inject_at
from interp.model import Model
from interp.oracle import Decoding, Oracle, OracleSpec, norm_matched_injection
from interp.oracle.collection import Reading, read_activations
from interp.oracle.engine import Job, answer_logp, generate
from interp.oracle.prompt import OraclePrompt
from interp.prompt import Example, Prompt

SPEC = OracleSpec(layers=("50%",))
N_QUESTIONS, N_SLOTS, N_NEW = 8, 200, 20


def build(layers: int, width: int, setting: Setting) -> Model:
    """A Qwen3 of this size with three random LoRA adapters."""
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=1000,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(1, width // 256),
        head_dim=64,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=None,
        bos_token_id=None,
    )
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    module = get_peft_model(Qwen3ForCausalLM(config), lora, adapter_name="engaged")
    for name in ("heuristic", "oracle"):
        module.add_adapter(name, lora)
    module = module.eval().requires_grad_(False)
    return Model(module.to(setting.device, torch.bfloat16) if setting.gpu else module)


def tokens(n: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(3, 1000, (n,), generator=torch.Generator().manual_seed(seed)).tolist())


def questions(model: Model) -> list[Job]:
    """One reading of 200 slots and 8 questions of different lengths."""
    vectors = torch.randn(N_SLOTS, model.d_model, generator=torch.Generator().manual_seed(1)).to(model.dtype)
    head = tokens(6 + N_SLOTS + 2, 2)
    slots = tuple(range(6, 6 + N_SLOTS))
    ids = [head + tokens(12 + i, 3 + i) for i in range(N_QUESTIONS)]
    return [Job(OraclePrompt("", one, slots, (), len(one)), vectors, "reading") for one in ids]


def shared_prefix(report: Report, model: Model, *, rounds: int) -> None:
    jobs, decoding = questions(model), Decoding(max_new_tokens=N_NEW)
    with model.adapters.use("oracle"):
        ours = lambda: generate(model, jobs, SPEC, decoding)  # noqa: E731
        loop = lambda: [generate(model, [job], SPEC, decoding, share=False)[0] for job in jobs]  # noqa: E731
        differ = sum(a != b for a, b in zip(ours(), loop(), strict=True))
        assert model.dtype == torch.bfloat16 or not differ, "the shared prefix gives other tokens than full prompts"
        best = interleave({"ours": ours, "loop": loop}, rounds=rounds)
        report.add(
            f"{N_QUESTIONS} questions over {N_SLOTS} activations: full prompts / shared",
            best["loop"] / best["ours"],
            goal=">= 3",
            limit=str(N_QUESTIONS),
            agree=float(differ),
            note=f"({best['ours']:.2f} s; answers of {N_NEW} tokens that differ: {differ})",
        )
        scored = [
            Job(
                OraclePrompt("", job.ids + tokens(4, 50 + i), job.prompt.slots, (), len(job.ids)),
                job.vectors,
                job.source,
            )
            for i, job in enumerate(jobs)
        ]
        ours_logp = lambda: answer_logp(model, scored, SPEC)  # noqa: E731
        loop_logp = lambda: [answer_logp(model, [job], SPEC, share=False)[0] for job in scored]  # noqa: E731
        agree = max(float((a - b).abs().max()) for a, b in zip(ours_logp(), loop_logp(), strict=True))
        best = interleave({"ours": ours_logp, "loop": loop_logp}, rounds=rounds)
        report.add(
            "the same, scoring given answers: full prompts / shared",
            best["loop"] / best["ours"],
            goal=">= 3",
            limit=str(N_QUESTIONS),
            agree=agree,
        )


def collection(report: Report, model: Model, *, rounds: int, length: int = 192, n: int = 4) -> None:
    """Base, engaged and heuristic at half the depth in one pass, against one full forward of the base."""
    texts = [tokens(length, 100 + i) for i in range(n)]
    at = (length - 1,)
    readings = [
        Reading(str(i), Example(id=str(i), text="x"), Prompt(str(i), "", ids, ((0, 0),) * length, {}), at, "last")
        for i, ids in enumerate(texts)
    ]
    layer = [model.n_layers // 2]
    roles: list[str | None] = [None, "engaged", "heuristic"]

    def mixed() -> dict[str | None, list[Tensor]]:
        return read_activations(model, readings, roles, layer, 100_000)

    def one_by_one() -> dict[str | None, list[Tensor]]:
        return {role: read_activations(model, readings, [role], layer, 100_000)[role] for role in roles}

    def forward() -> object:
        with model.adapters.use(None):
            return model.module(input_ids=torch.tensor(texts, device=model.device), use_cache=False)

    a, b = mixed(), one_by_one()
    agree = max(float((x - y).abs().max()) for role in roles for x, y in zip(a[role], b[role], strict=True))
    best = interleave({"mixed": mixed, "single": one_by_one, "forward": forward}, rounds=rounds)
    report.add(
        "base + 2 adapters at half depth: one mixed pass / one full forward",
        best["mixed"] / best["forward"],
        goal="<= 2.2",
        limit=f"{3 * (layer[0] + 1) / model.n_layers:.2f}",
        agree=agree,
        note=f"({best['mixed']:.2f} s, {n} texts of {length})",
    )
    report.add("the same: one pass per adapter / one mixed pass", best["single"] / best["mixed"], agree=agree)


def by_row(resid: Tensor, vectors: list[Tensor], positions: list[list[int]], coefficient: float = 1.0) -> Tensor:
    """The original's hook, row by row and in place on a copy."""
    resid = resid.clone()
    normed = [torch.nn.functional.normalize(v, dim=-1) for v in vectors]
    for b, at in enumerate(positions):
        where = torch.tensor(at, dtype=torch.long, device=resid.device)
        there = resid[b, where, :]
        steered = (normed[b] * there.norm(dim=-1, keepdim=True) * coefficient).to(resid.dtype)
        resid[b, where, :] = steered.detach() + there
    return resid


def injection(report: Report, *, rounds: int, device: str) -> None:
    for rows, k in ((256, 10), (64, 100), (16, 1)):
        generator = torch.Generator().manual_seed(rows)
        resid = torch.randn(rows, k + 40, 256, generator=generator).to(device)
        vectors = torch.randn(rows * k, 256, generator=generator).to(device)
        positions = [list(range(3, 3 + k)) for _ in range(rows)]
        split = list(vectors.split(k))
        slots = Slots.of(positions, n_vectors=rows * k, batch=rows).to(resid.device)
        ours = lambda: inject_at(resid, vectors, slots)  # noqa: B023, E731
        loop = lambda: by_row(resid, split, positions)  # noqa: B023, E731
        agree = float((norm_matched_injection(resid, vectors, positions) - loop()).abs().max())
        best = interleave({"ours": ours, "loop": loop}, rounds=4 * rounds)
        report.add(
            f"injection, {rows} rows of {k}: loop over rows / vectorised",
            best["loop"] / best["ours"],
            agree=agree,
            note=f"({1e3 * best['ours']:.2f} ms in the hook)",
        )


def main() -> None:
    options = arguments(__doc__ or "")
    report = Report("oracle")
    large, wide = {"gpu": ((28, 1024),) * 2, "cpu": ((8, 256), (16, 512)), "rehearsal": ((2, 256),) * 2}[options.kind]
    model = build(*large, options)
    assert Oracle(model, spec=SPEC).adapter == "oracle"
    shared_prefix(report, model, rounds=options.rounds)
    collection(report, model if wide == large else build(*wide, options), rounds=options.rounds)
    injection(report, rounds=options.rounds, device=options.device)
    report.finish(options.json)


if __name__ == "__main__":
    main()
