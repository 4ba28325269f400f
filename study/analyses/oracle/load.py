"""Load an oracle by name: base, adapter and the prior-only oracle; its wiring is tested once and the result stored."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from typing_extensions import TypedDict

from interp.checkpoint import Checkpoint
from interp.io.files import write_file
from interp.io.read import read_json
from interp.loading import load
from interp.oracle import Oracle, OracleSpec, SelfTest, context_items, selftest
from interp.prompt import Example, Message
from interp.remedy import remedy
from study.embedded import EMBEDDED, weights_folder
from study.members import Loading
from study.rows import Row

ORACLE, PRIOR = "oracle", "prior"
PRIOR_FOLDER = "oracle_prior"  # of the shipped weights
MEMORY = "oracle_selftests.json"


def load_oracle(
    model: str,
    adapter: str | None = None,
    *,
    subfolder: str | None = None,
    revision: str | None = None,
    adapter_revision: str | None = None,
    prior: str | None = None,
    spec: OracleSpec | None = None,
    loading: Loading | None = None,
) -> Oracle:
    """The oracle `adapter` on its base; `model="embedded"` is the one that comes with the package.

    Args:
        prior: folder or id of an oracle that was trained on zeroed activations.
        spec: how it is wired; None reads the adapter's own declaration, or the registry, or assumes it loudly.
    Raises:
        ValueError: no adapter named, or one that does not fit the base; as `interp.load`.
    """
    if model == EMBEDDED:
        folder = weights_folder()
        model, adapter = str(folder / "base"), adapter or str(folder / "oracle")
        prior = prior or (str(folder / PRIOR_FOLDER) if (folder / PRIOR_FOLDER).is_dir() else None)
    if adapter is None:
        raise ValueError(
            remedy(
                "an oracle is an adapter on its base: give {adapter} (or {model:embedded}).",
                "an oracle is an adapter on its base: give {adapter}.",
            )
        )
    where = Path(adapter).expanduser()
    inner = where / subfolder if subfolder and where.is_dir() else adapter
    spec = spec or OracleSpec.infer(inner, revision=adapter_revision)
    first = Checkpoint(ORACLE, model, adapter, revision, adapter_revision, subfolder)
    others = [Checkpoint(PRIOR, model, prior, revision)] if prior else []
    loaded = load(first, siblings=others, **(loading or {}))
    spec = replace(spec, base_model=spec.base_model or model)
    return Oracle(loaded, adapter=ORACLE, spec=spec, prior=PRIOR if prior else None)


def remembered(oracle: Oracle) -> SelfTestRecord | None:
    """The result of an earlier self-test of these very weights under this spec; None where there was none."""
    path = _memory()
    if not path.is_file():
        return None
    return _known(path).get(key_of(oracle))


def run_selftest(
    oracle: Oracle, examples: Sequence[Example] | None = None, *, layer: int | None = None, n: int = 64, seed: int = 0
) -> SelfTest:
    """Run the wiring self-test on texts (default: a few plain passages) and remember how it ended.

    Raises:
        ValueError: texts too short; as `interp.oracle.selftest`.
    """
    layer = oracle.spec.layer_indices(oracle.model.n_layers)[0] if layer is None else layer
    texts = list(examples) if examples else plain_passages()
    with oracle.model.adapters.use(None):
        items = context_items(oracle.model, texts, layer=layer, n=n, seed=seed, thinking=oracle.spec.context_thinking)
    result = selftest(oracle, items, layer=layer)
    _remember(oracle, result)
    return result


def key_of(oracle: Oracle) -> str:
    """Hash of the base's and the adapter's weights and of the spec: what a self-test is a statement about."""
    fingerprint = oracle.model.fingerprint
    weights = None if fingerprint is None else fingerprint.select(oracle.adapter).sha256
    spec = {k: v for k, v in asdict(oracle.spec).items() if k not in ("origin", "revision", "base_model")}
    text = json.dumps({"weights": weights, "spec": spec}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plain_passages() -> list[Example]:
    """Short texts of no special kind, for models that read English."""
    return [Example(id=f"passage-{i}", messages=(Message("user", text),)) for i, text in enumerate(_PASSAGES)]


def _remember(oracle: Oracle, result: SelfTest) -> None:
    path = _memory()
    entries = _known(path) if path.is_file() else {}
    entries[key_of(oracle)] = {
        "passed": result.passed,
        "explanation": result.explanation,
        "zero_gap": [result.zero_gap.value, result.zero_gap.lo, result.zero_gap.hi],
        "n": result.declared.n,
        "model": oracle.model.name,
        "rows": result.rows(),
    }
    write_file(path, json.dumps(entries, indent=1, sort_keys=True).encode())


class SelfTestRecord(TypedDict):
    """What is kept of one self-test."""

    passed: bool
    explanation: str
    zero_gap: list[float]
    n: int
    model: str
    rows: list[Row]


def _known(path: Path) -> dict[str, SelfTestRecord]:
    return read_json(path, dict[str, SelfTestRecord], "Delete it: self-tests are run again.")


def _memory() -> Path:
    home = os.environ.get("DIPTYCH_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "diptych") / MEMORY


_PASSAGES = (
    "The ferry left the harbour at seven, an hour late, because the captain had waited for the doctor. Nobody on the "
    "upper deck seemed to mind: the rain had stopped and the islands lay clear and dark along the horizon.",
    "To find the area of the field we split it into a rectangle and a triangle. The rectangle is 40 metres by 25, "
    "so 1000 square metres. The triangle has a base of 40 and a height of 12, which gives 240 more.",
    "Whoever keeps bees learns to listen before opening a hive. A steady low hum means that all is well; a higher, "
    "ragged note means that the queen is gone, that there is no food, or that rain is coming.",
    "The museum bought the clock in 1931 from a dealer in Lyon. It had stopped at twenty past four, and the curators "
    "never agreed whether to repair it or to leave it as the fire had left it.",
    "Suppose that every guest shakes hands with every other guest exactly once. With six guests there are fifteen "
    "handshakes, since each of the six shakes five hands and every handshake is counted twice.",
    "In the second year of the drought the council closed the lower canal. Farmers on the western side dug wells, and "
    "by the autumn the water table had fallen so far that the old fountain in the square ran dry.",
    "She checked the wiring twice. The red lead went to the battery, the black one to the frame, and the fuse was new. "
    "Still the lamp would not light, so she took the switch apart and found a grain of sand in it.",
    "Light from the nearest star takes more than four years to reach us. What we see tonight left it when the oak "
    "behind the school was half as tall, and what it does tonight we shall not know for years.",
)
