"""Says hello to every object that it is called for, and counts them: the number is kept with the outcome of the event."""


def handle(event, context):
    name = event.object["status"].get("name") or event.key.id
    greeted = context.recall("greeted") or 0
    context.remember("greeted", greeted + 1)
    print(f"hello {name}, you are number {greeted + 1}")
    return f"greeted {name}"
