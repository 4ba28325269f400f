"""Checkpoints are exact, frozen, and parsed with errors that say where and what to write instead."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.checkpoint import Checkpoint, CheckpointPair, Fingerprint

PAIR = """\
base: org/base-7b
engaged:
  adapter: org/b5-sft
  adapter_revision: "abc123"
heuristic:
  name: sft-last
  adapter: ./local/last
"""


def write(tmp_path, text):
    path = tmp_path / "pair.yaml"
    path.write_text(text)
    return path


def test_a_pair_in_yaml_fills_names_from_roles_and_bases_from_the_pair(tmp_path):
    pair = CheckpointPair.from_yaml(write(tmp_path, PAIR))
    assert pair.engaged == Checkpoint("engaged", "org/base-7b", "org/b5-sft", adapter_revision="abc123")
    assert pair.heuristic == Checkpoint("sft-last", "org/base-7b", str(tmp_path / "./local/last"))
    assert pair.shares_base
    assert pair.members == {
        "engaged": pair.engaged,
        "heuristic": pair.heuristic,
        "base": Checkpoint("base", "org/base-7b"),
    }


def test_members_of_two_bases_bring_both_bare_bases_and_do_not_share(tmp_path):
    text = PAIR.replace("base: org/base-7b", "base: org/base-7b\nheuristic_base: org/base-14b")
    pair = CheckpointPair.from_yaml(write(tmp_path, text))
    assert pair.heuristic.base == "org/base-14b"
    assert not pair.shares_base
    assert list(pair.members) == ["engaged", "heuristic", "base", "heuristic_base"]


def test_two_revisions_of_one_base_are_two_bases():
    one = Checkpoint("a", "org/base", "org/x", revision="v1")
    pair = CheckpointPair(one, Checkpoint("b", "org/base", "org/y", revision="v2"), base="org/base")
    assert not pair.shares_base
    assert pair.members["base"].revision == "v1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("adapter: org", "adaptor: org"), r"yaml: engaged, line 3: unknown key 'adaptor'; did you mean 'adapter'"),
        (("heuristic:", "heuristics:"), r"line 5: unknown key 'heuristics'; did you mean 'heuristic'"),
        (('"abc123"', "123"), r"engaged, line 4: adapter_revision must be a string, got 123 \(int\); quote it"),
        (("base: org/base-7b\n", ""), r"pair\.yaml: engaged: 'base' is missing"),
        (("base: org/base-7b", "base: [a]"), r"line 1: base must be a model id or folder, got \['a'\]"),
        (("  adapter: org/b5-sft", "  adapter: y\n  adapter: x"), r"line 4: key 'adapter' is already given on line 3"),
        (("  name: sft-last", "  name: a/b"), r"heuristic: checkpoint name 'a/b': expected letters"),
        (("engaged:\n", "engaged: ["), r"not readable as YAML"),
    ],
)  # fmt: skip
def test_a_mistake_in_yaml_is_named_with_its_line(tmp_path, change, expected):
    path = write(tmp_path, PAIR.replace(*change, 1))
    with pytest.raises(ValueError, match=expected):
        CheckpointPair.from_yaml(path)


def test_a_pair_of_the_same_weights_or_a_scalar_is_refused(tmp_path):
    one = Checkpoint("a", "org/base", "org/x")
    with pytest.raises(ValueError, match="are the same weights"):
        CheckpointPair(one, replace(one, name="b"))
    with pytest.raises(ValueError, match="expected a mapping with the keys engaged, heuristic"):
        CheckpointPair.from_yaml(write(tmp_path, "just a string"))
    with pytest.raises(ValueError, match="no such file"):
        CheckpointPair.from_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ValueError, match="'heuristic' is missing"):
        CheckpointPair.from_mapping({"engaged": {"base": "x"}})


@pytest.mark.parametrize("field", ["adapter_revision", "subfolder"])
def test_fields_about_an_adapter_need_an_adapter(field):
    with pytest.raises(ValueError, match=f"{field}='x' but no adapter"):
        Checkpoint("a", "org/base", **{field: "x"})


def test_a_single_checkpoint_round_trips_through_yaml_and_cannot_be_changed(tmp_path):
    text = "name: b5.1\nbase: org/base\nadapter: org/x\nrevision: main\nadapter_revision: r2\nsubfolder: final\n"
    checkpoint = Checkpoint.from_yaml(write(tmp_path, text))
    assert checkpoint == Checkpoint("b5.1", "org/base", "org/x", "main", "r2", "final")
    with pytest.raises(FrozenInstanceError):
        checkpoint.base = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="base must be a non-empty string, got ' '"):
        Checkpoint("a", " ")


digests = st.text("0123456789abcdef", min_size=4, max_size=4)


@given(digests, digests, st.dictionaries(st.sampled_from(["a", "b.1", "c"]), digests))
def test_a_fingerprint_survives_json_and_does_not_depend_on_adapter_names(config, weights, adapters):
    one = Fingerprint(config, weights, adapters=adapters)
    assert Fingerprint(**one.as_dict()) == one
    renamed = replace(one, adapters={f"{role}x": digest for role, digest in reversed(adapters.items())})
    assert renamed.sha256 == one.sha256
    for role, digest in adapters.items():
        assert one.select(role).sha256 == Fingerprint(config, weights, adapters={"alone": digest}).sha256
    assert one.select(None).sha256 == Fingerprint(config, weights).sha256


@pytest.mark.parametrize(
    "change",
    [{"config_sha256": "x"}, {"weights_sha256": "x"}, {"tokenizer_sha256": "x"}, {"adapters": {"a": "x"}},
     {"quantization": "x"}, {"merged": True}],
)  # fmt: skip
def test_every_field_is_part_of_the_identity(change):
    one = Fingerprint("c", "w", "t")
    assert replace(one, **change).sha256 != one.sha256


def test_layer_zero_imports_neither_torch_nor_transformers():
    code = "import sys, interp.checkpoint; print(sorted({'torch', 'transformers', 'peft', 'yaml'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
