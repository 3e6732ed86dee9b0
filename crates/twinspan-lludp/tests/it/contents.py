"""Hippolyzer's parsers of what fields hold: one request a line, one answer a line."""
import json
import sys

import hippolyzer.lib.base.serialization as se
from hippolyzer.lib.base import templates
from hippolyzer.lib.base.namevalue import NameValuesSerializer

KINDS = {
    "compressed": templates.ObjectUpdateCompressedDataSerializer.TEMPLATE,
    "terse": templates.ImprovedTerseObjectUpdateDataSerializer.TEMPLATE,
    "texture": templates.TE_SERIALIZER,
    "particles": templates.PSBLOCK_TEMPLATE,
    "extra": templates.EXTRA_PARAM_COLLECTION,
    "animation": templates.TA_TEMPLATE,
}


def plain(value):
    """Numbers as they are, vectors as lists, all else as text."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "tag") and hasattr(value, "value"):
        return plain(value.value)
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if hasattr(value, "__dataclass_fields__") and not hasattr(value, "X"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, str):
        return value
    try:
        return [plain(part) for part in value]
    except TypeError:
        return str(value)


def main():
    for line in sys.stdin:
        kind, text = line.split()
        try:
            data = bytes.fromhex(text)
            value = se.BufferReader("<", data).read(KINDS[kind])
            writer = se.BufferWriter("<")
            writer.write(KINDS[kind], value)
            answer = {"told": plain(value), "again": bytes(writer.copy_buffer()).hex()}
        except Exception as error:  # The test tells what went wrong.
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


main()
