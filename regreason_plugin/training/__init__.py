"""The Axolotl plugin: arguments, dataset strategy, refusal of silent mistakes."""
