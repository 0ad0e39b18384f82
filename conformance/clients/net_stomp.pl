#!/usr/bin/perl
# Net::Stomp of Perl: STOMP 1.0 and 1.1 over TCP. One end of the line protocol, see "The line protocol" in
# ../README.md. One thread: what is asked and what arrives are taken in turn.

use strict;
use warnings;

use IO::Select;
use JSON::PP;
use MIME::Base64;
use Net::Stomp;
use Net::Stomp::Frame;

open(my $out, '>&', \*STDOUT) or die $!;
open(STDOUT, '>&', \*STDERR) or die $!;    # libraries like to talk; stdout is ours
$out->autoflush(1);

my $json = JSON::PP->new->utf8->canonical;
my (%sessions, $requests);

sub say_line { print {$out} $json->encode($_[0]), "\n" }

sub pack_body {
    my ($bytes) = @_;
    my $text = $bytes // '';
    return utf8::decode($text) ? $text : { '$bytes' => encode_base64($bytes, '') };
}

sub unpack_body {
    my ($body) = @_;
    return decode_base64($body->{'$bytes'}) if ref $body;
    utf8::encode($body);
    return $body;
}

# Header values as bytes on the wire, as text for the runner.
sub to_bytes { my %bytes = %{ $_[0] // {} }; utf8::encode($_) for values %bytes; return \%bytes }
sub to_text { my %text = %{ $_[0] // {} }; utf8::decode($_) for values %text; return \%text }

my %operations = (
    subscribe => sub {
        my ($session, $asked) = @_;
        $session->{keys}{ $asked->{destination} } = $asked->{key};
        my $id = $session->{version} eq '1.0' ? {} : { id => $asked->{key} };
        return with_receipt($session, $asked, { %$id, ack => 'auto', %{ to_bytes($asked->{headers}) },
            destination => $asked->{destination} }, sub { $session->{stomp}->subscribe($_[0]) });
    },
    unsubscribe => sub {
        my ($session, $asked) = @_;
        my ($destination) = grep { $session->{keys}{$_} eq $asked->{key} } keys %{ $session->{keys} };
        $session->{stomp}->unsubscribe(
            $session->{version} eq '1.0' ? { destination => $destination } : { id => $asked->{key} });
        return undef;
    },
    send => sub {
        my ($session, $asked) = @_;
        my $body = unpack_body($asked->{body});
        return with_receipt($session, $asked, { %{ to_bytes($asked->{headers}) }, body => $body,
            destination => $asked->{destination}, 'content-length' => length $body },
            sub { $session->{stomp}->send($_[0]) });
    },
    ack => sub { settle('ack', @_) },
    nack => sub { settle('nack', @_) },
    begin => sub { transaction('BEGIN', @_) },
    commit => sub { transaction('COMMIT', @_) },
    abort => sub { transaction('ABORT', @_) },
    close => sub {
        my ($session) = @_;
        $session->{stomp}->disconnect;
        ended($session, 'disconnected');
        return undef;
    },
    drop => sub {
        my ($session) = @_;
        shutdown($session->{stomp}->socket, 2);
        ended($session, 'dropped');
        return undef;
    },
);

# Sends, and answers when the receipt has come, if one is wanted.
sub with_receipt {
    my ($session, $asked, $headers, $send) = @_;
    unless ($asked->{receipt}) { $send->($headers); return undef }
    my $receipt = 'receipt-' . ++$session->{number};
    $session->{receipts}{$receipt} = $asked->{id};
    $send->({ %$headers, receipt => $receipt });
    return 'later';
}

sub settle {
    my ($verb, $session, $asked) = @_;
    my $frame = $session->{messages}[ $asked->{handle} ];
    my $subscription = $frame->headers->{subscription};
    $session->{stomp}->$verb({ frame => $frame, %{ $asked->{headers} // {} },
        (defined $subscription ? (subscription => $subscription) : ()) });
    return undef;
}

sub transaction {
    my ($command, $session, $asked) = @_;
    my $headers = { transaction => $asked->{transaction} };
    $session->{stomp}->send_frame(Net::Stomp::Frame->new({ command => $command, headers => $headers }));
    return undef;
}

sub connect_session {
    my ($asked) = @_;
    my $stomp = Net::Stomp->new({ hostname => $asked->{host}, port => $asked->{port}, reconnect_attempts => 1 });
    my $frame = $stomp->connect({
        'accept-version' => $asked->{version}, host => $asked->{vhost} // $asked->{host},
        (defined $asked->{login} ? (login => $asked->{login}, passcode => $asked->{passcode}) : ()),
    });
    die(($frame ? $frame->command . ': ' . ($frame->headers->{message} // '') : 'no answer') . "\n")
        unless $frame && $frame->command eq 'CONNECTED';
    $sessions{ $asked->{session} } = { name => $asked->{session}, stomp => $stomp, version => $asked->{version},
        messages => [undef], receipts => {}, keys => {}, number => 0 };
    return to_text($frame->headers);
}

sub ended {
    my ($session, $why) = @_;
    return unless delete $sessions{ $session->{name} };
    say_line({ event => 'closed', session => $session->{name}, reason => $why });
    say_line({ id => $_, error => { message => $session->{trouble} // $why } }) for values %{ $session->{receipts} };
}

sub take {
    my ($session) = @_;
    my $frame = eval { $session->{stomp}->receive_frame({ timeout => 5 }) };
    # The library reconnects by itself where it can; here that is the end.
    return ended($session, $@ || 'the stream ended') unless $frame;
    my $headers = to_text($frame->headers);
    if ($frame->command eq 'MESSAGE') {
        push @{ $session->{messages} }, $frame;
        my $key = $session->{version} eq '1.0' ? $session->{keys}{ $headers->{destination} } : $headers->{subscription};
        say_line({ event => 'message', session => $session->{name}, key => $key // $headers->{destination},
            handle => $#{ $session->{messages} }, headers => $headers, body => pack_body($frame->body) });
    } elsif ($frame->command eq 'RECEIPT') {
        my $asked = delete $session->{receipts}{ $headers->{'receipt-id'} };
        say_line({ id => $asked, ok => { receipt => $headers->{'receipt-id'} } }) if defined $asked;
    } elsif ($frame->command eq 'ERROR') {
        $session->{trouble} = "ERROR: $headers->{message}";
        say_line({ event => 'error', session => $session->{name}, headers => $headers,
            body => pack_body($frame->body) });
    }
}

sub answer {
    my ($asked) = @_;
    my $result = eval {
        $asked->{op} eq 'about' ? { library => 'Net::Stomp', version => "$Net::Stomp::VERSION" }
            : $asked->{op} eq 'connect' ? connect_session($asked)
            : $operations{ $asked->{op} }->($sessions{ $asked->{session} } // die("the session has ended\n"), $asked);
    };
    if (my $why = $@) { return say_line({ id => $asked->{id}, error => { message => "$why" } }) }
    say_line({ id => $asked->{id}, ok => $result }) unless defined $result && !ref $result && $result eq 'later';
}

my $select = IO::Select->new(\*STDIN);
my $input = '';
while (1) {
    for my $session (values %sessions) {
        take($session) while $sessions{ $session->{name} } && $session->{stomp}->can_read({ timeout => 0 });
    }
    my $sockets = IO::Select->new(\*STDIN, map { $_->{stomp}->socket } values %sessions);
    my @ready = $sockets->can_read(0.5);
    next unless grep { $_ == \*STDIN } @ready;
    my $count = sysread(STDIN, $input, 1 << 16, length $input);
    exit 0 unless $count;
    answer($json->decode($1)) while $input =~ s/^(.*)\n//;
}
