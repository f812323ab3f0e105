"""The tokenizer files of a checkpoint directory, with tokenizer.json as transformers understands it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.errors import CheckpointError
from edgellm.package.file_names import is_inside
from edgellm.package.sentence import sentence_files
from edgellm.text.template_files import MORE_TEMPLATES, OLD_TEMPLATE, TEMPLATE, read_templates
from edgellm_export.checkpoint.json_file import read_json, read_text
from edgellm_export.tokenizer import m2m100, marian
from edgellm_export.tokenizer.build import compact
from edgellm_export.tokenizer.effective import TOKENIZER, VOCABULARIES, effective_tokenizer
from edgellm_export.tokenizer.settings import CONFIG as TOKENIZER_CONFIG
from edgellm_export.tokenizer.settings import SPECIAL_MAP, text_of_json

TEMPLATE_NAME = re.compile(r"[\w-][\w.-]*")
PREPROCESSOR = "preprocessor_config.json"  # what speech is made into
CARRIED = (TOKENIZER, TOKENIZER_CONFIG, SPECIAL_MAP, TEMPLATE, "generation_config.json", PREPROCESSOR)
# What a tokenizer may be built of, beside tokenizer.json or where there is none.
ANCESTORS = VOCABULARIES
INSTEAD = (marian.MARIAN, m2m100.FILES)  # files that are read even where there is a tokenizer.json


def read_text_files(path: Path) -> dict[str, bytes]:
    """What a package carries of the directory `path`, as far as it exists. Raises CheckpointError."""
    files = {name: (path / name).read_bytes() for name in CARRIED if (path / name).is_file()}
    others = [OLD_TEMPLATE, *(f"{MORE_TEMPLATES}/{file.name}" for file in (path / MORE_TEMPLATES).glob("*.jinja"))]
    read = {name for name in others if (path / name).is_file()}
    for name in (files.keys() | read) - {TOKENIZER}:  # what the runtime, or this, will have to read
        (read_json if name.endswith(".json") else read_text)(path / name)
    config = read_json(path / TOKENIZER_CONFIG) if TOKENIZER_CONFIG in files else {}
    if effective := effective_tokenizer(path):
        files[TOKENIZER] = compact(effective.content)
        files |= _told(config, effective.said)
    return sentence_files(path) | files | _templates(path, config)


def _told(config: Mapping[str, Any], said: Mapping[str, str | bool]) -> dict[str, bytes]:
    """tokenizer_config.json with what is `said`, the special tokens that have names among it, wherever the checkpoint
    says it; nothing where it says it there."""
    changed = {name: text for name, text in said.items() if text_of_json(config.get(name)) != text}
    return {TOKENIZER_CONFIG: (json.dumps(dict(config) | changed, indent=2) + "\n").encode()} if changed else {}


def _encoded(path: Path, template: str) -> bytes:
    try:
        return template.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{path} has a chat template that is not Unicode text ({error})") from error


def _templates(path: Path, config: Mapping[str, Any]) -> dict[str, bytes]:
    """The chat templates, each in the file that newer checkpoints have it in."""
    found = {}
    for name, template in read_templates(path, config).items():
        file = TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja"
        if not TEMPLATE_NAME.fullmatch(name) or not is_inside(file):
            raise CheckpointError(f"{path} has a chat template named {name!r}, which cannot be the name of a file")
        found[file] = _encoded(path, template)
    return found
