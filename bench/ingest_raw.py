"""The floor for bench/ingest.py: a blocking socket that drains the queue, counts and acknowledges every 500. Prints JSON.

No properties, no decoding, no heartbeat: nothing a client may leave out. Frames: AMQP 0-9-1 §2.3.5.
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import time

import pamqp.commands as c
import pamqp.frame
import pamqp.header

QUEUE = "vedette"
DELIVER = b"\x00\x3c\x00\x3c"


def send(sock: socket.socket, method: object, channel: int) -> None:
    sock.sendall(pamqp.frame.marshal(method, channel))


def main(port: int, count: int) -> None:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(pamqp.header.ProtocolHeader().marshal())
    buffer = b""

    def expect(kind: type) -> object:
        nonlocal buffer
        while True:
            if len(buffer) >= 7 and len(buffer) >= 8 + struct.unpack(">I", buffer[3:7])[0]:
                used, _, method = pamqp.frame.unmarshal(buffer)
                buffer = buffer[used:]
                if isinstance(method, kind):
                    return method
                continue
            buffer += sock.recv(65536)

    expect(c.Connection.Start)
    send(sock, c.Connection.StartOk(mechanism="PLAIN", response="\0guest\0guest", client_properties={}), 0)
    tune = expect(c.Connection.Tune)
    send(sock, c.Connection.TuneOk(tune.channel_max, 131072, 0), 0)
    send(sock, c.Connection.Open("/"), 0)
    expect(c.Connection.OpenOk)
    send(sock, c.Channel.Open(), 1)
    expect(c.Channel.OpenOk)
    send(sock, c.Basic.Qos(prefetch_count=2000), 1)
    expect(c.Basic.QosOk)
    send(sock, c.Basic.Consume(queue=QUEUE), 1)
    expect(c.Basic.ConsumeOk)
    rest = bytearray(buffer)
    view = bytearray(262144)
    seen = acked = 0
    start = cpu = 0.0
    while seen < count:
        size = sock.recv_into(view)
        if not size:
            raise ConnectionError("closed")
        if not start:
            start, cpu = time.perf_counter(), time.process_time()
        rest += memoryview(view)[:size]
        at, end = 0, len(rest)
        while at + 7 <= end:
            length = int.from_bytes(rest[at + 3 : at + 7], "big")
            if at + 8 + length > end:
                break
            if rest[at] == 1 and rest[at + 7 : at + 11] == DELIVER:
                seen += 1
            at += 8 + length
        del rest[:at]
        if seen - acked >= 500:
            # Only whole messages: the newest may still miss its body.
            send(sock, c.Basic.Ack(seen - 1, True), 1)
            acked = seen - 1
    send(sock, c.Basic.Ack(seen, True), 1)
    wall, used = time.perf_counter() - start, time.process_time() - cpu
    send(sock, c.Connection.Close(200, "", 0, 0), 0)
    sock.settimeout(20)
    sock.recv(65536)  # CloseOk: everything before it was taken
    print(json.dumps({"rate": count / wall, "cpu": used / count * 1e6, "bytes": 0}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
