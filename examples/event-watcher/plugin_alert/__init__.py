"""An alert for each route that comes, goes, or changes its host: a POST to Alertmanager's API, or to whatever takes its form.

`[plugin_alert]`: `url`, such as `http://alertmanager:9093/api/v2/alerts`; `severity` (`warning`). An alert that can't be sent
raises, and Vedette calls again. It is sent under the same labels then, so Alertmanager has it once.
"""

import requests

TIMEOUT = 10


def handle_event(watcher, event, config, *args, old=None, **kwargs):
    found = event["object"]
    metadata = found["metadata"]
    if event["type"] == "MODIFIED" and old and host_of(old) == host_of(found):
        return f"{found['kind']} {metadata['name']}: no alert", "DEBUG"
    alert = {
        "labels": {
            "alertname": f"{found['kind']}{event['type'].title()}",
            "severity": config.get("severity", "warning"),
            "namespace": metadata.get("namespace", ""),
            "name": metadata["name"],
        },
        "annotations": {"summary": f"{metadata['name']} ({host_of(found)}) was {event['type'].lower()}"},
    }
    requests.post(config["url"], json=[alert], timeout=TIMEOUT).raise_for_status()
    return f"{alert['labels']['alertname']}: {alert['annotations']['summary']}", "WARNING"


def host_of(found):
    return found.get("spec", {}).get("host", "")
