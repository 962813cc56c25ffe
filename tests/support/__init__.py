"""What the tests share: roots, real servers, a proxy, processes to kill, waiting. Nothing here is a test."""
