"""Searching a folder by meaning with nothing set up: its index is kept, and brought up to date before each search.

home, scope = find_home(Path("notes"))
with home.held() as lock:
    for report in refresh(home, …):
        …
with open_folder(home, …) as folder:
    folder.search("how do I resume a build", scopes=[scope])
"""
