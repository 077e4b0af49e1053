// Connects to HOST PORT as often as it can, from LOCAL if given, never says anything, at most 300 open at once; prints the count
// of each second until it is ended.
import { connect } from "node:net";

const [host, port, localAddress] = process.argv.slice(2);
let count = 0;

function next(): void {
  const socket = connect({
    host: host as string,
    port: Number(port),
    ...(localAddress === undefined ? {} : { localAddress }),
  });
  const over = () => {
    count += 1;
    socket.destroy();
    setImmediate(next);
  };
  socket.once("connect", () => socket.on("data", () => undefined));
  socket.once("error", () => undefined);
  socket.once("close", over);
  setTimeout(() => socket.destroy(), 200);
}

for (let n = 0; n < 300; n += 1) next();
setInterval(() => {
  process.stdout.write(`${count}\n`);
  count = 0;
}, 1_000);
