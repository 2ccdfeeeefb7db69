/** The fields of a Llama's config.json, in Hugging Face's terms, that its weights cannot be used without. */
export interface LlamaConfig {
  readonly model_type: "llama";
  /** Channels of the residual stream. */
  readonly hidden_size: number;
  /** Channels inside of the feed-forward layers. */
  readonly intermediate_size: number;
  readonly num_hidden_layers: number;
  readonly num_attention_heads: number;
  readonly num_key_value_heads: number;
  /** Channels of a head. */
  readonly head_dim: number;
  readonly vocab_size: number;
  /** Longest sequence that it was trained on. */
  readonly max_position_embeddings: number;
  readonly rms_norm_eps: number;
  /** Base of the rotary embedding's wavelengths. */
  readonly rope_theta: number;
  /** Whether the head is the embedding table; there is no `lm_head.weight` then. */
  readonly tie_word_embeddings: boolean;
  readonly hidden_act: "silu";
  readonly attention_bias: boolean;
  readonly mlp_bias: boolean;
}
