"""Model and adapter folders on disk for the loading tests, and what plain transformers and PEFT make of them."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from interp.checkpoint import Checkpoint
from tests.tiny import add_lora, randomise_lora, save_checkpoint

IDS = [[5, 9, 17, 3, 40]]
logging.disable_progress_bar()


def make_hub(root: Path) -> Path:
    """Folders: base (2 layers), other (wider MLP), and adapters of base: lora, dora, rslora, second."""
    save_checkpoint(root / "base", num_hidden_layers=2)
    save_checkpoint(root / "other", num_hidden_layers=2, intermediate_size=64, seed=5)
    for name, kw in {"lora": {}, "dora": {"dora": True}, "rslora": {"rslora": True}, "second": {"seed": 21}}.items():
        add_lora(base_model(root), **kw).save_pretrained(root / name)
    return root


def base_model(root, name="base"):
    return AutoModelForCausalLM.from_pretrained(root / name, dtype=torch.float32).eval()


def expected(root, adapter=None, base="base"):
    """Logits that plain transformers and PEFT give."""
    model = base_model(root, base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, root / adapter, torch_device="cpu").eval()
    return model(torch.tensor(IDS)).logits


def ck(root, adapter=None, name="b5.1", base="base", **kw):
    return Checkpoint(name, str(root / base), None if adapter is None else str(root / adapter), **kw)


def copied(root, tmp_path, name):
    return shutil.copytree(root / name, tmp_path / name)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def saved(root, tmp_path, config, change=lambda peft: None):
    """A folder with an adapter of `config` on the base, after `change(peft)`."""
    peft = get_peft_model(base_model(root), config)
    randomise_lora(peft, seed=4)
    with torch.no_grad():
        change(peft)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.eval().save_pretrained(tmp_path / "made")
    return tmp_path / "made"


def grow_ia3(peft):
    for parameter in [p for n, p in peft.named_parameters() if "ia3" in n]:
        parameter.mul_(1.5)


def perturb(*names):
    def change(peft):
        for name, p in peft.named_parameters():
            if any(part in name for part in names):
                p.add_(0.3)

    return change
