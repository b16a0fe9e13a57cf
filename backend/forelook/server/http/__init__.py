"""The HTTP interfaces that editors already speak: OpenAI's, llama.cpp's and Ollama's, on the server's one engine."""
