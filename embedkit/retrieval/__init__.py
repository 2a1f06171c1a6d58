"""From a query to ranked hits: fusion, reranking and the pieces they need. numpy only."""
