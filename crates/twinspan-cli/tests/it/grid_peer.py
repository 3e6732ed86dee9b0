"""Two clients of Hippolyzer on a grid: they log in, talk, walk, look at things, travel and leave.

The login URI is the argument; what came of it is one JSON object on standard output.
"""

import asyncio
import json
import logging
import sys

from hippolyzer.lib.base.datatypes import UUID, Vector3
from hippolyzer.lib.base.message.message import Block, Message
from hippolyzer.lib.client.hippo_client import HippoClient

PATIENCE = 30.0


async def until(what, is_so):
    """Waits until something is so."""
    for _ in range(int(PATIENCE / 0.05)):
        if is_so():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{what} never came")


def update(client, flags):
    """Says which controls are held."""
    return client.main_circuit.send_reliable(Message(
        "AgentUpdate",
        Block(
            "AgentData",
            AgentID=client.session.agent_id,
            SessionID=client.session.id,
            ControlFlags=flags,
            Far=64.0,
            fill_missing=True,
        ),
    ))


def instant_message(client, to, text):
    """Writes to somebody."""
    return client.main_circuit.send_reliable(Message(
        "ImprovedInstantMessage",
        Block("AgentData", AgentID=client.session.agent_id, SessionID=client.session.id),
        Block("MessageBlock", ToAgentID=to, Message=text, fill_missing=True),
        Block("EstateBlock", fill_missing=True),
    ))


async def visit(uri, done):
    ruth, max_ = HippoClient(), HippoClient()
    try:
        for client, name in ((ruth, "Ruth Tester"), (max_, "Max Tester")):
            await asyncio.wait_for(
                client.login(name, "sesame", login_uri=uri, start_location="Alpha"), PATIENCE)
        done["regions"] = [ruth.main_region.name, max_.main_region.name]
        done["caps"] = sorted(name for name in ruth.main_region.caps if name != "Seed")

        # Ruth's avatar, and the things of the region, as Max sees them.
        who = ruth.session.agent_id
        await until("an avatar", lambda: max_.main_region.objects.lookup_fullid(who))
        await until("the bench", lambda: any(
            obj.Text == "Bench" or obj.Text == b"Bench\0"
            for obj in max_.main_region.objects.all_objects))
        done["objects"] = len(list(max_.main_region.objects.all_objects))

        # What is said and written.
        heard = []
        max_.main_region.message_handler.subscribe(
            "ChatFromSimulator", lambda msg: heard.append(str(msg["ChatData"]["Message"])))
        max_.main_region.message_handler.subscribe(
            "ImprovedInstantMessage",
            lambda msg: heard.append(str(msg["MessageBlock"]["Message"])))
        await ruth.send_chat("good day")
        await instant_message(ruth, max_.session.agent_id, "a secret")
        await until("the words", lambda: len(heard) >= 2)
        done["heard"] = sorted(text.rstrip("\0") for text in heard)

        # Ruth walks east.
        avatar = max_.main_region.objects.lookup_fullid(who)
        begin = avatar.Position.X
        await update(ruth, 1)
        await until("steps", lambda: avatar.Position.X > begin + 2.0)
        await update(ruth, 0)
        done["walked"] = True

        # A texture, whole and in part.
        url = ruth.main_region.caps["GetTexture"]
        texture = "7e270000-0000-4000-8000-000000000001"
        async with ruth.http_session.get(f"{url}/?texture_id={texture}") as reply:
            done["texture"] = [reply.status, len(await reply.read())]
        async with ruth.http_session.get(
                f"{url}/?texture_id={texture}", headers={"Range": "bytes=0-99"}) as reply:
            done["part"] = [reply.status, len(await reply.read())]

        # The inventory.
        root = ruth.session.login_data["inventory-root"][0]["folder_id"]
        async with ruth.main_caps_client.post("FetchInventoryDescendents2", llsd={"folders": [{
                "folder_id": UUID(root), "owner_id": who,
                "fetch_folders": True, "fetch_items": True}]}) as reply:
            folders = await reply.read_llsd()
            done["folders"] = len(folders["folders"][0]["categories"])

        # To another region.
        await until("a neighbour", lambda: len(ruth.session.regions) == 2)
        handle = (1010 * 256) << 32 | (1000 * 256)
        await asyncio.wait_for(ruth.teleport(handle, Vector3(100, 100, 25)), PATIENCE)
        await until("the other region", lambda: ruth.main_region.name == "Gamma")
        done["arrived"] = ruth.main_region.name
        # The neighbour stays on its list: it never opened a circuit there that could end.
        await until("the old region's end", lambda: all(
            region.name != "Alpha" for region in ruth.session.regions))
    finally:
        await ruth.aclose()
        await max_.aclose()


def main():
    logging.disable(logging.CRITICAL)
    done = {}
    try:
        asyncio.run(asyncio.wait_for(visit(sys.argv[1], done), 4 * PATIENCE))
    except Exception as error:  # It is told with how far it came.
        done["error"] = repr(error)
    print(json.dumps(done))


main()
