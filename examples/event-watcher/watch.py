r"""The OpenShift Event Watcher's `watch.py`: run it as you did. Plugins beside it are found, `plugin_<name>/__init__.py`.

K8S_TOKEN=`oc whoami -t` K8S_API_ENDPOINT='master.example.com:8443' K8S_NAMESPACE=event-watcher \
    ENV_K8S_CA=./kubernetes.io/serviceaccount/ca.crt K8S_RESOURCE=routes python watch.py
"""

from pathlib import Path

from vedette.cli.event_watcher import main

if __name__ == "__main__":
    main(Path(__file__).resolve().parent)
