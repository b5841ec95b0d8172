// MQTT.js through a tunnel to a broker: `node mqtt_client.mjs [URL [TOPIC MESSAGE]]`.
//
// A browser and Node.js speak MQTT only over WebSocket; a broker such as mosquitto speaks it over TCP. Install the
// libraries, start the tunnel, and run the client:
//
//     npm install
//     python tunnel.py --listen beastws:tcp:9011:target=/mqtt:subprotocols=mqtt --to tcp:localhost:1883
//     node mqtt_client.mjs ws://localhost:9011/mqtt greetings hello
//
// The client subscribes to the topic, publishes the message, and ends when the broker has delivered it.

import mqtt from "mqtt";

const [url = "ws://localhost:9011/mqtt", topic = "greetings", message = "hello"] = process.argv.slice(2);
const client = mqtt.connect(url, { reconnectPeriod: 0 });

process.exitCode = 1;
client.on("connect", async () => {
  await client.subscribeAsync(topic);
  await client.publishAsync(topic, message, { qos: 1 });
});
client.on("message", (from, payload) => {
  console.log(`${from}: ${payload}`);
  process.exitCode = 0;
  client.end();
});
client.on("error", (error) => console.error(error.message));
client.on("close", () => {
  if (process.exitCode) {
    console.error(`no answer from ${url}`);
  }
});
