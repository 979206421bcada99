// An application as users of ndn-js (NDN Common Client Libraries) write them; its commands are signed with RSA, in the older format.
//
// node ndn-js.cjs produce PREFIX              says True when it is registered, answers every Interest under the prefix
// node ndn-js.cjs consume PREFIX INTERESTS    asks for so many names, one after the other; prints what became of it as JSON
const { Data, Face, Interest, KeyChain, Name, UnixTransport } = require("ndn-js");

Interest.setDefaultCanBePrefix(false);
const [role, prefix, interests] = process.argv.slice(2);
const socket = process.env.NDN_CLIENT_TRANSPORT.replace("unix://", "");
const face = new Face(new UnixTransport(), new UnixTransport.ConnectionInfo(socket));

function ask(number) {
  return new Promise((resolve) => {
    const begun = performance.now();
    const interest = new Interest(new Name(prefix).append(String(number)));
    interest.setInterestLifetimeMilliseconds(4000);
    const answered = (_interest, data) => {
      resolve(data.getContent().buf().toString() === "served" ? performance.now() - begun : null);
    };
    face.expressInterest(interest, answered, () => resolve(null), () => resolve(null));
  });
}

async function consume() {
  let attempts = 0; // routes take a moment after a registration
  while (attempts < 20 && (await ask(1_000_000 + attempts)) === null) {
    attempts += 1;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const rtts = [];
  for (let number = 0; number < Number(interests); number += 1) {
    const rtt = await ask(number);
    if (rtt !== null) rtts.push(rtt);
  }
  console.log(JSON.stringify({ asked: Number(interests), rtts_ms: rtts, attempts }));
  process.exit(0);
}

function produce() {
  const keyChain = new KeyChain("pib-memory:", "tpm-memory:");
  keyChain.createIdentityV2(new Name("/bench"));
  face.setCommandSigningInfo(keyChain, keyChain.getDefaultCertificateName());
  const answer = (_prefix, interest, onFace) => {
    const data = new Data(interest.getName());
    data.getMetaInfo().setFreshnessPeriod(10000);
    data.setContent("served");
    keyChain.sign(data);
    onFace.putData(data);
  };
  face.registerPrefix(new Name(prefix), answer, () => console.log("False"), () => console.log("True"));
}

if (role === "produce") produce();
else consume();
