"""What a program does with the streams of the Python client: commands with and without input, ports, logs and watches."""

import base64
import faulthandler
import json
import socket
import ssl

import websocket
from kubernetes import client, config
from kubernetes.stream import portforward, stream

# Who waits in vain says where.
faulthandler.dump_traceback_later(120, exit=True)
config.load_kube_config()
core = client.CoreV1Api()
place = {"name": "simple-echo", "namespace": "default"}

# A command, all at once.
command = ["sh", "-c", "echo out; echo err >&2"]
said = stream(core.connect_get_namespaced_pod_exec, container="echo", command=command, stdout=True, stderr=True,
              stdin=False, tty=False, **place)
assert said == "out\nerr\n" or said == "err\nout\n", said

# A command that is spoken with.
talk = stream(core.connect_get_namespaced_pod_exec, container="echo", stdin=True, stdout=True, stderr=True, tty=False,
              command=["sh", "-c", "read word; echo got $word; exit 3"], _preload_content=False, **place)
talk.write_stdin("it\n")
talk.run_forever(timeout=30)
assert talk.read_stdout(timeout=0) == "got it\n", talk
assert talk.returncode == 3, talk.returncode

# Ports: one where somebody listens and one where nobody does.
ports = portforward(core.connect_get_namespaced_pod_portforward, ports="8080,9", **place)
web = ports.socket(8080)
web.settimeout(30)
web.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")
answer = b""
while b"Hello" not in answer:
    piece = web.recv(1024)
    assert piece, answer
    answer += piece
nobody = ports.socket(9)
nobody.settimeout(30)
assert nobody.recv(1) == b""
assert "failed to connect to localhost:9" in ports.error(9), ports.error(9)
ports.close()

# Logs and watches over WebSocket.
configuration = core.api_client.configuration
tls = {"ca_certs": configuration.ssl_ca_cert, "certfile": configuration.cert_file, "keyfile": configuration.key_file,
       "check_hostname": False, "cert_reqs": ssl.CERT_REQUIRED}
root = configuration.host.replace("https://", "wss://") + "/api/v1/namespaces/default/pods"


def messages(path, **options):
    connection = websocket.create_connection(root + path, sslopt=tls, timeout=30, **options)
    while True:
        code, data = connection.recv_data()
        if code == websocket.ABNF.OPCODE_CLOSE:
            return
        yield code, data


log = b"".join(data for _, data in messages("/simple-echo/log?container=echo", subprotocols=["binary.k8s.io"]))
assert b"start server" in log, log
coded = [data for _, data in messages("/simple-echo/log?container=echo", subprotocols=["base64.binary.k8s.io"])]
assert b"".join(base64.b64decode(data) for data in coded) == log, coded
assert b"".join(data for _, data in messages("/simple-echo/log?container=echo")) == log
code, data = next(messages("?watch=true&fieldSelector=metadata.name%3Dsimple-echo"))
event = json.loads(data)
assert code == websocket.ABNF.OPCODE_TEXT and event["type"] == "ADDED", event
assert event["object"]["metadata"]["name"] == "simple-echo", event
print("all of it")
