"""What another Kubernetes API has that is followed: one object for each resource of a source, told by the source itself.

`/clusters/{source}` is made of them: which groups, versions and words there are, and which Kubernetes kind each one is.
"""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Resource",
    plural="resources",
    singular="resource",
    group=VEDETTE,
    doc="A resource of a Kubernetes source: a kind of object that is followed there and served under /clusters/{source}.",
    events=(),
    read=lambda _notice: (),
    fields={
        "plural": Field("string", "Its name in a path, e.g. routes."),
        "singular": Field("string", "Its name for one of them, e.g. route."),
        "kind": Field("string", "The kind of its objects, e.g. Route."),
        "group": Field("string", 'Its API group, e.g. route.openshift.io; "" for the core group.'),
        "version": Field("string", "The version of the group that is followed, e.g. v1."),
        "namespaced": Field("boolean", "Whether its objects are in namespaces."),
        "shortNames": Field("array", "Shorter names of it."),
        "categories": Field("array", "Words that name several resources at once, e.g. all."),
        "form": Field("string", "How the source makes what it offers of its objects; when that changes, all are offered again."),
    },
    columns=(
        Column("Plural", ("plural",)),
        Column("Group", ("group",)),
        Column("Version", ("version",)),
        Column("Kind", ("kind",)),
        Column("Namespaced", ("namespaced",), "boolean"),
    ),
    audience="admin",
)
