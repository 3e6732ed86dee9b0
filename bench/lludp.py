"""Hippolyzer's codec on the packets of one login: messages a second, as one JSON object."""
import json
import logging
import sys
import time

from hippolyzer.lib.base.message.udpdeserializer import UDPMessageDeserializer
from hippolyzer.lib.base.message.udpserializer import UDPMessageSerializer
from hippolyzer.lib.base.settings import Settings

WINDOWS = 5
SECONDS = 0.4


def rate(part, inputs):
    """The median of the windows."""
    rates = []
    for _ in range(WINDOWS):
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            for one in inputs:
                part(one)
            done += len(inputs)
        rates.append(done / (time.perf_counter() - began))
    return sorted(rates)[WINDOWS // 2]


def main():
    logging.disable(logging.CRITICAL)
    settings = Settings()
    settings.ENABLE_DEFERRED_PACKET_PARSING = False
    deserializer, serializer = UDPMessageDeserializer(settings), UDPMessageSerializer()
    with open(sys.argv[1]) as file:
        datagrams = [bytes.fromhex(line[2:]) for line in file if line[:2] in ("> ", "< ")]
    messages = [deserializer.deserialize(datagram) for datagram in datagrams]
    print(json.dumps({
        "decode_messages_per_second": rate(deserializer.deserialize, datagrams),
        "encode_messages_per_second": rate(serializer.serialize, messages),
        "messages": len(datagrams),
    }))


main()
