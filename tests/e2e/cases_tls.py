# SPDX-License-Identifier: Apache-2.0
"""weft-gateway by HTTPS: curl, answers, streams, WebSockets; another certificate while it runs. See
harness.py."""
import shutil
import signal
import ssl
import subprocess

from harness import MODEL, MeshSpec, Skip, case, check, wait_until
from http_client import PORT, Gateway, Stream, chat, connect_inside, content
from ws_client import Session

ONE = MeshSpec(workers="frankfurt")
SEEN_S = 30.0


class SecureGateway(Gateway):
    """The same, by TLS."""

    def __init__(self, mesh, folder):
        self.context = ssl.create_default_context(cafile=f"{folder}/cert.pem")
        super().__init__(mesh, "tokyo", "--tls-cert", f"{folder}/cert.pem", "--tls-key",
                         f"{folder}/key.pem")

    def socket(self):
        plain = connect_inside(self.netns, ("127.0.0.1", PORT))
        return self.context.wrap_socket(plain, server_hostname="localhost")

    def serial(self):
        with self.socket() as sock:
            return sock.getpeercert()["serialNumber"]


def certificate(folder, name=""):
    done = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost", "-keyout", f"{folder}/{name}key.pem", "-out",
         f"{folder}/{name}cert.pem"], capture_output=True, text=True, check=False)
    check(done.returncode == 0, "openssl:", done.stderr[-800:])


@case("tls/https", ONE)
def https(mesh, _quick):
    """Whoever trusts the certificate is served, all that HTTP serves; SIGHUP takes another one, but
    none that does not fit its key; running streams go on."""
    if not shutil.which("openssl") or not shutil.which("curl"):
        raise Skip("needs openssl and curl")
    folder = f"{mesh.folder}/tls"
    subprocess.run(["mkdir", "-p", folder], check=True)
    certificate(folder)
    g = SecureGateway(mesh, folder)
    try:
        curl = ["curl", "-s", "--max-time", "20", f"https://localhost:{PORT}/health"]
        trusting = subprocess.run(mesh.in_netns([*curl, "--cacert", f"{folder}/cert.pem"], "tokyo"),
                                  capture_output=True, text=True, check=False)
        check('"ok"' in trusting.stdout, trusting)
        doubting = subprocess.run(mesh.in_netns(curl, "tokyo"), check=False)
        check(doubting.returncode == 60, "curl trusts anybody:", doubting)
        stream = Stream(g, "/v1/chat/completions", chat(MODEL, "Count.", max_tokens=12))
        next(stream)
        first = g.serial()
        certificate(folder, "next-")
        shutil.copy(f"{folder}/next-cert.pem", f"{folder}/cert.pem")
        g.process.send_signal(signal.SIGHUP)  # the key is still the old one
        wait_until(lambda: "certificate not taken" in g.log(), SEEN_S, "it says no")
        check(g.serial() == first, "another certificate")
        shutil.copy(f"{folder}/next-key.pem", f"{folder}/key.pem")
        g.context.load_verify_locations(f"{folder}/cert.pem")
        g.process.send_signal(signal.SIGHUP)
        wait_until(lambda: g.serial() != first, SEEN_S, "the new certificate is shown")
        events = list(stream)
        check(stream.done and content(events), "the running stream was cut:", events[-1:])
        s = Session(g, f"/v1/realtime?model={MODEL}")
        check(s.status == 101 and s.event()["type"] == "session.created", s.status)
        s.user_says("hi")
        s.say("session.update", session={"max_output_tokens": 4})
        s.until("session.updated")
        text, response = s.answer()
        check(text and response["status"] in ("completed", "incomplete"), response)
        check(g.stop() == 0, "exit status")
    finally:
        g.close()
