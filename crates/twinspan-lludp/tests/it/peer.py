"""Hippolyzer's codec as a peer: one request a line on standard input, one answer a line."""
import json
import struct
import sys
from pathlib import Path

from hippolyzer.lib.base.message import data as message_data
from hippolyzer.lib.base.message.msgtypes import MsgDeprecation, MsgEncoding, MsgFrequency, MsgType
from hippolyzer.lib.base.message.template_dict import DEFAULT_TEMPLATE_DICT
from hippolyzer.lib.base.message.udpdeserializer import UDPMessageDeserializer
from hippolyzer.lib.base.message.udpserializer import UDPMessageSerializer
from hippolyzer.lib.base.settings import Settings

settings = Settings()
settings.ENABLE_DEFERRED_PACKET_PARSING = False
deserializer = UDPMessageDeserializer(settings)
serializer = UDPMessageSerializer()


def text_of(value, kind):
    """A value in the words of the test: floats by their bits, bytes as hex."""
    if kind in (MsgType.MVT_FIXED, MsgType.MVT_VARIABLE):
        raw = value.encode("utf8") + b"\0" if isinstance(value, str) else bytes(value)
        return raw.hex()
    if kind.is_float:
        return struct.pack(">d", value).hex()
    if kind.name.startswith("MVT_LLVector"):
        return " ".join(struct.pack(">d", part).hex() for part in value)
    if kind == MsgType.MVT_LLQuaternion:
        return " ".join(struct.pack(">d", part).hex() for part in value.data()[:3])
    return str(int(value)) if isinstance(value, int) else str(value)


def again(datagram):
    """Takes a packet apart, tells its values, and writes it again."""
    message = deserializer.deserialize(datagram)
    template = DEFAULT_TEMPLATE_DICT.get_template_by_name(message.name)
    values = []
    for block in template.blocks:
        for index, item in enumerate(message.blocks[block.name]):
            for field in block.variables:
                name = f"{block.name}[{index}].{field.name}"
                values.append([name, text_of(item[field.name], field.type)])
    written = bytes(serializer.serialize(message)).hex()
    return {"name": message.name, "values": values, "hex": written}


def templates():
    """What every message consists of, by the peer's own reading of its own template."""
    found = []
    for name in DEFAULT_TEMPLATE_DICT.message_templates:
        template = DEFAULT_TEMPLATE_DICT.get_template_by_name(name)
        blocks = []
        for block in template.blocks:
            fields = [[v.name, v.type.name, v.size] for v in block.variables]
            blocks.append([block.name, block.block_type, block.number, fields])
        found.append({
            "name": name,
            "frequency": MsgFrequency(template.frequency).name,
            "number": template.freq_num_bytes.hex(),
            "trusted": bool(template.trusted),
            "zero": template.encoding == MsgEncoding.ZEROCODED,
            "deprecation": MsgDeprecation(template.deprecation).name if template.deprecation is not None else None,
            "blocks": blocks,
        })
    folder = Path(next(iter(message_data.__path__)))
    return {"messages": found, "text": (folder / "message_template.msg").read_text()}


def main():
    for line in sys.stdin:
        request = line.strip()
        try:
            answer = templates() if request == "templates" else again(bytes.fromhex(request))
        except Exception as error:  # The test tells what went wrong.
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


main()
