// An application as users of NDNts write them.
//
// node ndnts.mjs produce PREFIX              says True when it is registered, answers every Interest under the prefix
// node ndnts.mjs consume PREFIX INTERESTS    asks for so many names, one after the other; prints what became of it as JSON
import { consume, produce } from "@ndn/endpoint";
import { Data, Interest, Name, digestSigning } from "@ndn/packet";
import { UnixTransport } from "@ndn/node-transport";
import { enableNfdPrefixReg } from "@ndn/nfdmgmt";

const [role, prefix, interests] = process.argv.slice(2);
const socket = process.env.NDN_CLIENT_TRANSPORT.replace("unix://", "");
const face = await UnixTransport.createFace({ addRoutes: [new Name()] }, socket);

async function ask(number) {
  const begun = performance.now();
  const interest = new Interest(new Name(prefix).append(String(number)), Interest.Lifetime(4000));
  const data = await consume(interest, { verifier: digestSigning });
  if (new TextDecoder().decode(data.content) !== "served") throw new Error("not what was asked for");
  return performance.now() - begun;
}

if (role === "produce") {
  enableNfdPrefixReg(face, { signer: digestSigning });
  const content = new TextEncoder().encode("served");
  produce(new Name(prefix), async ({ name }) => new Data(name, Data.FreshnessPeriod(10000), content), {
    dataSigner: digestSigning,
  });
  console.log("True"); // what it asks of the forwarder, it goes on asking for until it has it
} else {
  let attempts = 0; // routes take a moment after a registration
  while (attempts < 20 && !(await ask(1_000_000 + attempts).catch(() => null))) {
    attempts += 1;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const rtts = [];
  for (let number = 0; number < Number(interests); number += 1) {
    const rtt = await ask(number).catch(() => null);
    if (rtt !== null) rtts.push(rtt);
  }
  console.log(JSON.stringify({ asked: Number(interests), rtts_ms: rtts, attempts }));
  process.exit(0);
}
