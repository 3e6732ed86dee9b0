"""Python's own XML-RPC as a peer: one response a line, one answer a line."""
import base64
import json
import sys
import xmlrpc.client

for line in sys.stdin:
    try:
        values, _ = xmlrpc.client.loads(base64.b64decode(line), use_builtin_types=False)
        written = xmlrpc.client.dumps(values, methodresponse=True)
        answer = {"written": base64.b64encode(written.encode()).decode()}
    except Exception as error:  # The test tells what went wrong.
        answer = {"error": repr(error)}
    print(json.dumps(answer), flush=True)
