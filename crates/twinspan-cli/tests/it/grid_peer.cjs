// Two bots of node-metaverse on a grid: they log in, talk, walk, look at things, travel and leave.
//
// The login URI is the argument; what came of it is one JSON object on standard output.
'use strict';

const { Bot, ControlFlags, LoginParameters, Vector3 } = require('@caspertech/node-metaverse');

const PATIENCE_MS = 30000;
const TEXTURE = '7e270000-0000-4000-8000-000000000001';
const done = { rejections: [] };

// The library tells people what it does; here only the outcome counts.
for (const name of ['log', 'warn', 'error', 'debug']) {
  console[name] = () => {};
}

// It lets some failures of HTTP go by without a handler.
process.on('unhandledRejection', (error) => done.rejections.push(String(error)));

// Waits until something is so.
async function until(what, isSo) {
  for (let waited = 0; waited < PATIENCE_MS; waited += 50) {
    if (isSo()) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`${what} never came`);
}

async function enter(uri, firstName) {
  const parameters = new LoginParameters();
  parameters.firstName = firstName;
  parameters.lastName = 'Tester';
  parameters.password = 'sesame';
  parameters.start = 'last';
  parameters.url = uri;
  parameters.agreeToTOS = true;
  parameters.readCritical = true;
  const bot = new Bot(parameters, 0);
  await bot.login();
  await bot.connectToSim();
  await bot.waitForEventQueue(PATIENCE_MS);
  return bot;
}

async function visit(uri) {
  const ruth = await enter(uri, 'Ruth');
  const max = await enter(uri, 'Max');
  done.regions = [ruth, max].map((bot) => bot.currentRegion.regionName);

  // Ruth's avatar, as Max sees it.
  const who = ruth.agentID().toString();
  const seen = () => max.currentRegion.agents.get(who);
  await until('an avatar', () => seen() !== undefined && seen().position.x > 1);

  // What is said and written.
  const heard = [];
  max.clientEvents.onNearbyChat.subscribe((chat) => heard.push(chat.message));
  max.clientEvents.onInstantMessage.subscribe((message) => heard.push(message.message));
  await ruth.clientCommands.comms.say('good day');
  await ruth.clientCommands.comms.sendInstantMessage(max.agentID(), 'a secret');
  await until('the words', () => heard.includes('good day') && heard.includes('a secret'));
  done.heard = heard.filter((text) => text !== '').sort();

  // Ruth walks east.
  const begin = seen().position.x;
  await until('steps', () => {
    // The library lets go of all controls whenever its avatar's animation changes.
    ruth.agent.setControlFlag(ControlFlags.AGENT_CONTROL_AT_POS);
    ruth.agent.sendAgentUpdate();
    return seen().position.x > begin + 2;
  });
  ruth.agent.clearControlFlag(ControlFlags.AGENT_CONTROL_AT_POS);
  ruth.agent.sendAgentUpdate();
  done.walked = true;

  // A texture, and the inventory.
  done.texture = (await ruth.currentRegion.caps.downloadAsset(TEXTURE, 0)).length;
  done.folders = ruth.agent.inventory.main.skeleton.size;

  // To another region.
  const place = new Vector3([100, 100, 25]);
  await ruth.clientCommands.teleport.teleportTo('Gamma', place, place);
  done.arrived = ruth.currentRegion.regionName;
  await ruth.close();
  await max.close();
  done.left = true;
}

const limit = new Promise((_, reject) => {
  setTimeout(() => reject(new Error('it took too long')), 4 * PATIENCE_MS);
});
Promise.race([visit(process.argv[2]), limit])
  .catch((error) => {
    // It is told with how far it came.
    done.error = String(error && error.stack ? error.stack : error);
  })
  .finally(() => process.stdout.write(`${JSON.stringify(done)}\n`, () => process.exit(0)));
