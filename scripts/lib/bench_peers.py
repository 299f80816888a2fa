# SPDX-License-Identifier: Apache-2.0
"""Routers that scripts/bench-gateway holds Weft against: how each is started before an upstream,
and where it comes from. Python ones are in BUILD_DIR/peers/NAME (scripts/bench-peers).
"""
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

NGINX_CONF = """daemon off; worker_processes 1; error_log stderr crit; pid FOLDER/nginx.pid;
events { worker_connections 8192; }
http {
  access_log off;
  client_body_temp_path FOLDER; proxy_temp_path FOLDER; fastcgi_temp_path FOLDER;
  uwsgi_temp_path FOLDER; scgi_temp_path FOLDER;
  upstream worker { server 127.0.0.1:UPSTREAM; keepalive 256; }
  server {
    listen 127.0.0.1:PORT backlog=4096;
    keepalive_requests 1000000;
    location / {
      proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
"""
HAPROXY_CONF = """global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:PORT
  default_backend worker
backend worker
  server one 127.0.0.1:UPSTREAM
"""
LITELLM_CONF = """model_list:
  - model_name: MODEL
    litellm_params:
      model: openai/MODEL
      api_base: http://127.0.0.1:UPSTREAM/v1
      api_key: none
litellm_settings:
  telemetry: false
  drop_params: false
general_settings:
  dangerously_permit_weak_or_unset_master_key: true
"""


@dataclass
class Peer:
    """One router. `command` gives its words; @ stands for its file of settings."""
    name: str
    command: Callable
    conf: str = ""
    debian: bool = False
    rate_share: float = 1.0  # of the requests asked for: what it can take in reasonable time

    def program(self, build):
        """Where it is; None: not installed."""
        if self.debian:
            return shutil.which(self.name)
        home = Path(build).resolve() / "peers" / self.name
        return str(home / "bin" / "python") if (home / "complete").exists() else None

    def install(self):
        return (f"apt-get install {self.name}" if self.debian else
                f"scripts/bench-peers {self.name}")

    def version(self, build):
        if self.debian:
            done = subprocess.run([self.program(build), "-v"], capture_output=True, text=True,
                                  check=False)
            return (done.stdout + done.stderr).strip().splitlines()[0].split(" 20")[0]
        package = self.name.replace("_", "-")
        code = f"import importlib.metadata as m; print('{package}', m.version('{package}'))"
        return subprocess.run([self.program(build), "-c", code], capture_output=True, text=True,
                              check=True).stdout.strip()

    def words(self, build, folder, port, upstream, model):
        """Its command line, its settings written."""
        path, text = Path(folder) / f"{self.name}.conf", self.conf
        for name, value in (("FOLDER", folder), ("PORT", port), ("UPSTREAM", upstream),
                            ("MODEL", model)):
            text = text.replace(name, str(value))
        path.write_text(text, encoding="utf-8")
        words = [self.program(build), *self.command(port, upstream)]
        return [str(path) if word == "@" else str(word) for word in words]


def python_router(module, quiet):
    """sglang's and vLLM's take the same words, but for the level of their logs."""
    return lambda port, upstream: ["-m", module, "--host", "127.0.0.1", "--port", port,
                                   "--worker-urls", f"http://127.0.0.1:{upstream}",
                                   "--policy", "round_robin", "--log-level", quiet,
                                   "--prometheus-port", port + 100]


PEERS = {peer.name: peer for peer in (
    Peer("nginx", lambda port, upstream: ["-c", "@"], NGINX_CONF, debian=True),
    Peer("haproxy", lambda port, upstream: ["-db", "-f", "@"], HAPROXY_CONF, debian=True),
    Peer("sglang_router", python_router("sglang_router.launch_router", "warn"), rate_share=0.2),
    Peer("vllm_router", python_router("vllm_router.launch_router", "warning")),
    Peer("litellm", lambda port, upstream: ["-m", "litellm.proxy.proxy_cli", "--config", "@",
                                            "--host", "127.0.0.1", "--port", port],
         LITELLM_CONF, rate_share=0.1),
)}
