"""Train the encoders, the static model and the reranker on one GPU: python docs/reproduce/gpu COMMAND …"""

from commands import main

main()
