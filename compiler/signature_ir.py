"""How a traced module is called, as an attribute of the IR's module."""

from __future__ import annotations

import json
from typing import Final

from xdsl.dialects.builtin import ModuleOp, StringAttr

from gimlet.runtime.jsonread import parse_json
from gimlet.runtime.signature import Signature, signature_from_json, signature_to_json

_SIGNATURE: Final = "gimlet.signature"


def write_signature(module: ModuleOp, signature: Signature) -> None:
    """Records a signature in a module."""
    module.attributes[_SIGNATURE] = StringAttr(json.dumps(signature_to_json(signature)))


def read_signature(module: ModuleOp) -> Signature | None:
    """The signature that a module has, or None. InputError where it is malformed."""
    attribute = module.attributes.get(_SIGNATURE)
    if not isinstance(attribute, StringAttr):
        return None
    return signature_from_json(parse_json(attribute.data, _SIGNATURE))
