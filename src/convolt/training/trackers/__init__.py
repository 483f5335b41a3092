"""What a run tells TensorBoard, a CSV file, Weights & Biases and MLflow."""
