"""Hippolyzer's LLSD as a peer: one request a line on standard input, one answer a line."""
import base64
import datetime
import json
import struct
import sys
import uuid

import llsd
from hippolyzer.lib.base import llsd as hippo

PARSE = {"xml": hippo.parse_xml, "binary": hippo.parse_binary, "notation": hippo.parse_notation}
FORMAT = {"xml": hippo.format_xml, "binary": hippo.format_binary, "notation": hippo.format_notation}


def told(value):
    """A value in the words of the test: its type and what it is."""
    if value is None:
        return ["undef"]
    if isinstance(value, bool):
        return ["boolean", value]
    if isinstance(value, int):
        return ["integer", value]
    if isinstance(value, float):
        return ["real", struct.pack(">d", value).hex()]
    if isinstance(value, uuid.UUID):
        return ["uuid", str(value)]
    if isinstance(value, llsd.uri):
        return ["uri", str(value)]
    if isinstance(value, (llsd.binary, bytes)):
        return ["binary", bytes(value).hex()]
    if isinstance(value, str):
        return ["string", value]
    if isinstance(value, datetime.datetime):
        return ["date", (value.replace(tzinfo=None) - datetime.datetime(1970, 1, 1)).total_seconds()]
    if isinstance(value, (list, tuple)):
        return ["array", [told(item) for item in value]]
    if isinstance(value, dict):
        return ["map", {key: told(item) for key, item in value.items()}]
    raise ValueError(f"{type(value)}")


def main():
    for line in sys.stdin:
        form, text = line.split()
        try:
            value = PARSE[form](base64.b64decode(text))
            written = base64.b64encode(FORMAT[form](value)).decode()
            answer = {"told": told(value), "written": written}
        except Exception as error:  # The test tells what went wrong.
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


main()
