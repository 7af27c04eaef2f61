"""Where trees and items are kept: the protocol, over Redis or Valkey, and in memory."""
