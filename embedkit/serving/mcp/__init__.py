"""Tools for language models, by the Model Context Protocol (https://modelcontextprotocol.io): search a folder or an index, read from it.

served.py is what the tools need of what is served; folder.py and index.py are the two kinds of it; tools.py makes answers of it.
"""
